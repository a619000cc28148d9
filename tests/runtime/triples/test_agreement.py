"""What relations' names say of types."""

import pytest

from hvpnet_runtime import InputError
from hvpnet_runtime.triples.agreement import Agreement, entity_types, relation_types

MNRE = ("/per/org/member_of", "/per/per/couple", "/misc/loc/held_on", "None")
TYPES = ("PER", "LOC", "ORG", "MISC")


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("/per/org/member_of", ("per", "org")),
        ("/PER/Loc/place/of", ("per", "loc")),
        ("None", None),
        ("per/org/member_of", None),
        ("/per/org/", None),
        ("/per/org", None),
        ("founded by", None),
    ],
)
def test_types_of_a_name(name: str, types: tuple[str, str] | None) -> None:
    assert relation_types(name) == types


def test_types_of_labels() -> None:
    assert entity_types(("PAD", "O", "B-MISC", "I-MISC", "B-PER", "I-PER", "X", "[CLS]", "I-LOC")) == (
        "MISC",
        "PER",
        "LOC",
    )


def test_pairs_are_asked_about_where_a_relation_is_between_their_types() -> None:
    agreement = Agreement(MNRE, TYPES)
    asked = {(head, tail) for head in TYPES for tail in TYPES if agreement.asks(head, tail)}
    assert asked == {("PER", "ORG"), ("PER", "PER"), ("MISC", "LOC")}


def test_names_without_types_are_between_any() -> None:
    agreement = Agreement(("member_of", *MNRE), TYPES)
    assert all(agreement.asks(head, tail) for head in TYPES for tail in TYPES)
    assert agreement.choose({"/per/org/member_of": 0.6, "member_of": 0.3, "None": 0.1}, "LOC", "LOC") == "member_of"


def test_the_best_of_those_that_the_types_allow() -> None:
    probabilities = {"/per/org/member_of": 0.5, "None": 0.3, "/per/per/couple": 0.2, "/misc/loc/held_on": 0.0}
    agreement = Agreement(MNRE, TYPES)
    assert agreement.choose(probabilities, "PER", "ORG") == "/per/org/member_of"
    assert agreement.choose(probabilities, "per", "Org") == "/per/org/member_of"
    assert agreement.choose(probabilities, "PER", "PER") == "None"
    without_none = {name: score for name, score in probabilities.items() if name != "None"}
    assert Agreement(tuple(without_none), TYPES).choose(without_none, "PER", "PER") == "/per/per/couple"


def test_any_types() -> None:
    agreement = Agreement(MNRE, ("PERSON",), any_types=True)
    assert agreement.asks("PERSON", "PERSON")
    assert agreement.choose({"/misc/loc/held_on": 0.9, "None": 0.1}, "PERSON", "PERSON") == "/misc/loc/held_on"


def test_types_that_the_entities_do_not_have() -> None:
    with pytest.raises(InputError, match=r"'/per/org/member_of' is between types, and per is none .*PERSON.*any_types"):
        Agreement(MNRE, ("PERSON", "ORG", "MISC", "LOC"))


def test_nothing_but_none_is_asked_about_nothing() -> None:
    assert not Agreement(("None",), TYPES).asks("PER", "PER")
