"""Take turns: a slow moment of the machine then falls on every candidate alike, and timings pair up by round."""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Way = TypeVar("Way", bound=Hashable)
Timing = TypeVar("Timing")


@dataclass(frozen=True)
class Budget:
    """How long to go on.

    Attributes:
        seconds: no round begins later than this after the first began, save for the `least`.
        least: rounds in any case.
        most: rounds at most.
    """

    seconds: float
    least: int = 3
    most: int = 100


def interleave(
    ways: Mapping[Way, Callable[[int], Timing]],
    budget: Budget,
    *,
    warm_up: int = 1,
    first: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Way, list[Timing]]:
    """Call every way in turn, A B A B, round after round.

    Args:
        ways: called with the number of the round, and returning what they timed.
        budget: of the rounds that count.
        warm_up: rounds before them that do not count.
        first: number of the first round, warm-up included.
        clock: seconds.

    Returns:
        Per way what it returned, one for each round.
    """
    for number in range(first, first + warm_up):
        for way in ways.values():
            way(number)
    timings: dict[Way, list[Timing]] = {name: [] for name in ways}
    start = clock()
    for done in range(budget.most):
        if done >= budget.least and clock() - start >= budget.seconds:
            break
        for name, way in ways.items():
            timings[name].append(way(first + warm_up + done))
    return timings
