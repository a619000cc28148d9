"""Percentiles and ratios against values known by hand or by brute force; turns and budgets on a clock of our own."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet.bench.statistics import MOST, Ratio, Summary, interleave, take_turns

TIMES = st.lists(st.floats(0.1, 100), min_size=1, max_size=30)


def test_percentiles_by_hand() -> None:
    """Percentile q of 0, 1, ..., 100 in any order is q."""
    timings = [float(value) for value in np.random.default_rng(0).permutation(101)]
    assert Summary.of(timings) == Summary(count=101, minimum=0, p50=50, p95=95, p99=99)


def test_percentiles_between_two_timings() -> None:
    found = Summary.of([3.0, 1.0])
    assert (found.minimum, found.p50, found.p95, found.p99) == pytest.approx((1, 2, 2.9, 2.98))


def test_no_timings() -> None:
    with pytest.raises(ValueError, match="no timings"):
        Summary.of([])


def test_ratio_by_hand() -> None:
    """Rounds of 3x, 2x and 1x: the pairs count, not the sorted times."""
    found = Ratio.of([3.0, 4.0, 5.0], [1.0, 2.0, 5.0])
    assert (found.median, found.of_minima) == (2, 3)
    assert (found.low, found.high) == (1, 3)


def test_a_constant_ratio_has_no_interval_to_speak_of() -> None:
    baseline = np.random.default_rng(1).uniform(1, 9, 50)
    found = Ratio.of(baseline.tolist(), (baseline / 2).tolist())
    assert (found.median, found.low, found.high, found.of_minima) == (2, 2, 2, 2)


def test_the_interval_is_that_of_all_resamples() -> None:
    """All 5^5 resamples of five rounds can be listed; 2000 drawn ones come close to their percentiles."""
    ratios = [1.0, 1.5, 2.0, 2.5, 9.0]
    medians = [float(np.median(chosen)) for chosen in product(ratios, repeat=5)]
    found = Ratio.of(ratios, [1.0] * 5)
    assert (found.low, found.high) == tuple(np.percentile(medians, (2.5, 97.5)))


@given(TIMES, st.data())
def test_ratio_properties(baseline: list[float], data: st.DataObject) -> None:
    candidate = data.draw(st.lists(st.floats(0.1, 100), min_size=len(baseline), max_size=len(baseline)))
    found = Ratio.of(baseline, candidate)
    assert found == Ratio.of(baseline, candidate)  # the seed is fixed
    ratios = [mine / theirs for mine, theirs in zip(baseline, candidate, strict=True)]
    assert min(ratios) <= found.low <= found.median <= found.high <= max(ratios)


@pytest.mark.parametrize(("baseline", "candidate"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_must_pair(baseline: list[float], candidate: list[float]) -> None:
    with pytest.raises(ValueError, match="do not pair"):
        Ratio.of(baseline, candidate)


class Clock:
    """Only moves when a way is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hvpnet.bench.statistics.time.perf_counter", clock)
    return clock


@pytest.fixture
def calls() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def ways(clock: Clock, calls: list[tuple[str, int]]) -> dict[str, Callable[[int], float]]:
    def way(name: str, seconds: float) -> Callable[[int], float]:
        def call(number: int) -> float:
            calls.append((name, number))
            clock.now += seconds
            return seconds + number

        return call

    return {"a": way("a", 1), "b": way("b", 2)}


def test_ways_take_turns_after_a_warm_up(ways, calls) -> None:
    rounds = list(take_turns(ways, least=2, first=5))
    assert calls == [("a", 5), ("b", 5), ("a", 6), ("b", 6), ("a", 7), ("b", 7)]
    assert rounds == [{"a": 7, "b": 8}, {"a": 8, "b": 9}]


def test_timings_by_way(ways) -> None:
    assert interleave(ways, least=2, warm_up=0) == {"a": [1, 2], "b": [2, 3]}


@pytest.mark.parametrize(
    ("seconds", "least", "rounds"),
    [
        (0, 3, 3),
        (12, 1, 3),  # the one to warm up ends at 3, the others at 6, 9 and 12
        (11, 1, 2),
        (1000, 3, MOST),
        (0, MOST + 1, MOST + 1),
    ],
)
def test_budget(seconds: float, least: int, rounds: int, ways) -> None:
    assert len(list(take_turns(ways, seconds, least=least))) == rounds


@pytest.mark.parametrize(("limit", "rounds"), [(15, 4), (12, 3), (11, 2), (5, 0), (0, 0)])
def test_the_least_are_not_taken_beyond_the_limit(limit: float, rounds: int, clock: Clock, ways) -> None:
    assert len(list(take_turns(ways, least=4, limit=limit))) == rounds
    assert clock.now <= max(3, limit)  # but for the round to warm up


def test_nothing_takes_no_turns() -> None:
    assert list(take_turns({}, 10)) == []


def test_an_error_ends_it() -> None:
    def fail(number: int) -> float:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        interleave({"a": fail})
