"""What fits into a time, by hand and for any costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet.bench.budget import Costs, Schedule, schedule
from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.workload import Case

SLOW, FAST = Candidate("eager", "bf16"), Candidate("onnxruntime-cpu", "fp32")
FIRST, SEEN, LONG, LARGE = Case(1, 80), Case(1, 80, "all seen"), Case(1, 160), Case(8, 80)
GROUPS = [
    [(BASELINE, FIRST), (SLOW, FIRST), (FAST, FIRST), (FAST, SEEN)],
    [(BASELINE, LONG), (SLOW, LONG), (FAST, LONG)],
    [(BASELINE, LARGE), (SLOW, LARGE), (FAST, LARGE)],
]
COSTS = Costs(FIRST, cold={BASELINE: 3, SLOW: 9, FAST: 1}, warm={BASELINE: 2, SLOW: 5, FAST: 1}, start=30)
"""Least: 8, 20, 4 and 4 seconds; 16, 40 and 8; 64, 160 and 32. All are 356, with three starts 446."""


def test_rounds_are_in_proportion_and_the_first_of_a_shape_is_cold() -> None:
    assert COSTS.rounds((BASELINE, FIRST), 3) == 2 + 3 * 2
    assert COSTS.rounds((FAST, SEEN), 3) == 1 + 3 * 1
    assert COSTS.rounds((BASELINE, LONG), 3) == 4 + 3 * 4
    assert COSTS.rounds((BASELINE, Case(1, 40)), 3) == 3 + 3 * 2  # a short text is taken to cost no less
    assert COSTS.rounds((SLOW, LARGE), 3) == 40 + 3 * 40


@pytest.mark.parametrize(
    ("seconds", "chosen", "starts"),
    [
        (0, [[(BASELINE, FIRST), (FAST, FIRST)], [], []], 0),
        (12, [[(BASELINE, FIRST), (FAST, FIRST)], [], []], 0),
        (16, [[(BASELINE, FIRST), (FAST, FIRST), (FAST, SEEN)], [], []], 0),
        (32, [[(BASELINE, FIRST), (SLOW, FIRST), (FAST, FIRST)], [], []], 0),
        (76, [GROUPS[0], [(BASELINE, LONG), (FAST, LONG)], []], 0),
        (110, [GROUPS[0], GROUPS[1], []], 0),
        (130, [GROUPS[0], GROUPS[1], []], 1),
        (356, GROUPS, 0),
        (446, GROUPS, 3),
    ],
)
def test_the_most_important_come_first(seconds: float, chosen: list[list[object]], starts: int) -> None:
    found = schedule(GROUPS, COSTS, seconds)
    assert (found.groups, found.starts) == (chosen, starts)


def test_what_is_left_out_is_named() -> None:
    assert schedule(GROUPS, COSTS, 76).left_out == {
        LONG.name: [SLOW.name],
        LARGE.name: [BASELINE.name, SLOW.name, FAST.name],
    }
    assert schedule(GROUPS, COSTS, 446).left_out == {}


def test_what_is_left_over_is_shared_out() -> None:
    """50 seconds: thirty for the group of the first case, ten for each of the others."""
    assert schedule(GROUPS, COSTS, 446 + 50).seconds == [36 + 30, 64 + 10, 256 + 10]


def test_no_more_than_the_most_rounds_are_foreseen() -> None:
    found = schedule(GROUPS[:1], COSTS, 1e6)
    assert found.seconds == [(2 + 5 + 1 + 1) * 101]


def test_the_baseline_alone_is_timed_where_there_is_nothing_else() -> None:
    alone = [[(BASELINE, FIRST)], [(BASELINE, LARGE)]]
    assert schedule(alone, COSTS, 72).groups == alone


@given(
    seconds=st.floats(0, 1e4),
    warm=st.lists(st.floats(0.001, 50), min_size=3, max_size=3),
    start=st.floats(0, 100),
)
def test_it_keeps_within_the_seconds(seconds: float, warm: list[float], start: float) -> None:
    candidates = (BASELINE, SLOW, FAST)
    costs = Costs(FIRST, dict.fromkeys(candidates, 1), dict(zip(candidates, warm, strict=True)), start)
    found: Schedule = schedule(GROUPS, costs, seconds)
    must = costs.rounds((BASELINE, FIRST), 3) + min(costs.rounds((each, FIRST), 3) for each in (SLOW, FAST))
    assert sum(found.seconds) + found.starts * start <= max(seconds, must) * (1 + 1e-9)
    taken = [way for group in found.groups for way in group]
    assert {(BASELINE, FIRST)} < set(taken)
    assert len(taken) + sum(map(len, found.left_out.values())) == sum(map(len, GROUPS))
    for ways in found.groups:
        assert not ways or ways[0][0] == BASELINE
