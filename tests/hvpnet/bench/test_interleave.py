"""Turns and budgets, on a clock that only moves when a way is called."""

from collections.abc import Callable

import pytest

from hvpnet.bench.statistics import MOST, interleave


class Clock:
    """Seconds pass by `now` alone."""

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
    timings = interleave(ways, least=2, first=5)
    assert calls == [("a", 5), ("b", 5), ("a", 6), ("b", 6), ("a", 7), ("b", 7)]
    assert timings == {"a": [7, 8], "b": [8, 9]}


@pytest.mark.parametrize(
    ("seconds", "least", "rounds"),
    [
        (0, 3, 3),
        (7, 1, 3),  # rounds begin at 0, 3 and 6
        (6, 1, 2),
        (1000, 3, MOST),
        (0, MOST + 1, MOST + 1),
    ],
)
def test_budget(seconds: float, least: int, rounds: int, ways) -> None:
    timings = interleave(ways, seconds, least=least)
    assert [len(taken) for taken in timings.values()] == [rounds, rounds]


def test_an_error_ends_it() -> None:
    def fail(number: int) -> float:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        interleave({"a": fail})
