"""Texts that run together: the cheapest of all ways to cut a batch by length."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet_runtime.text_groups import group_by_length


def cost(groups, rows, lengths, run_tokens):
    return sum(
        run_tokens + sum(rows[each] for each in group) * max(lengths[each] for each in group) for group in groups
    )


def cheapest(rows, lengths, run_tokens):
    """The least cost of all ways to cut, each of which is tried."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ways = (cuts for count in range(len(order)) for cuts in combinations(range(1, len(order)), count))
    return min(
        cost([order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)], rows, lengths, run_tokens)
        for cuts in ways
    )


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(2, 40)), min_size=1, max_size=9), st.integers(0, 60))
def test_no_way_to_cut_is_cheaper(tweets, run_tokens):
    rows, lengths = zip(*tweets, strict=True)
    groups = group_by_length(rows, lengths, run_tokens)
    assert sorted(place for group in groups for place in group) == list(range(len(tweets)))
    assert cost(groups, rows, lengths, run_tokens) == cheapest(rows, lengths, run_tokens)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([30, 8, 31, 7], [[3, 1], [0, 2]]),
        ([30, 30, 30], [[0, 1, 2]]),
        ([9, 12], [[0, 1]]),  # three tokens of padding cost less than a run
        ([40], [[0]]),
        ([], []),
    ],
)
def test_groups(lengths, expected):
    assert group_by_length([1] * len(lengths), lengths, 16) == expected
