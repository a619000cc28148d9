"""Which pairs are asked about, against all of them."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet_runtime.triples.pairs import choose_pairs, normal_form
from hvpnet_runtime.types import Entity

ASKED = {("PER", "ORG"), ("PER", "PER"), ("LOC", "PER")}


def entity(text: str, kind: str, place: int = 0) -> Entity:
    return Entity(text, kind, place, place + 1, place, place, 0.9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lionel  Messi", "lionel messi"),
        ("STRASSE", "straße"),
        ("\ufb01nn", "Finn"),
        ("\uff2a\uff2f", "jo"),
        ("Zoe\u0308", "zo\u00eb"),
        ("a\u00a0b\n", "A B"),
    ],
)
def test_names_that_are_one(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


def test_names_that_are_not() -> None:
    assert len({normal_form(name) for name in ("Jordan", "Jordan B", "Jordán", "#Jordan")}) == 4


@given(
    st.lists(st.tuples(st.sampled_from("abAB"), st.sampled_from(("PER", "ORG", "LOC"))), max_size=7),
    st.integers(1, 30),
)
def test_those_that_differ_nearest_first(drawn: list[tuple[str, str]], limit: int) -> None:
    entities = [entity(text, kind, place) for place, (text, kind) in enumerate(drawn)]
    possible = [
        (head, tail)
        for head, tail in permutations(range(len(drawn)), 2)
        if (drawn[head][0].lower(), drawn[head][1]) != (drawn[tail][0].lower(), drawn[tail][1])
        and (drawn[head][1], drawn[tail][1]) in ASKED
    ]
    by_distance = sorted(possible, key=lambda pair: (abs(pair[0] - pair[1]), min(pair), pair[0]))
    pairs, cut = choose_pairs(entities, lambda head, tail: (head, tail) in ASKED, limit)
    assert pairs == sorted(by_distance[:limit])
    assert cut == max(0, len(possible) - limit)
