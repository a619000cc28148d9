"""Turns and budgets, on a clock that only moves when a way is called."""

from collections.abc import Callable

import pytest

from hvpnet.bench.interleave import Budget, interleave


class Clock:
    """Seconds pass by `advance` alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


def test_ways_take_turns_after_a_warm_up(ways, clock, calls) -> None:
    timings = interleave(ways, Budget(seconds=0, least=2), warm_up=1, first=5, clock=clock)
    assert calls == [("a", 5), ("b", 5), ("a", 6), ("b", 6), ("a", 7), ("b", 7)]
    assert timings == {"a": [7, 8], "b": [8, 9]}


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        (Budget(seconds=0, least=3), 3),
        (Budget(seconds=7, least=1), 3),  # rounds begin at 0, 3 and 6
        (Budget(seconds=6, least=1), 2),
        (Budget(seconds=1000, most=4), 4),
    ],
)
def test_budget(budget: Budget, rounds: int, ways, clock) -> None:
    timings = interleave(ways, budget, clock=clock)
    assert [len(taken) for taken in timings.values()] == [rounds, rounds]


def test_an_error_ends_it(clock) -> None:
    def fail(number: int) -> float:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        interleave({"a": fail}, Budget(1), clock=clock)
