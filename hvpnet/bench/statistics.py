"""Timings taken in turn, and numbers from them: percentiles, and ratios pair by pair with a bootstrap interval."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

MOST = 100
"""Rounds at most."""

_RESAMPLES, _SEED = 2000, 0

Way = TypeVar("Way", bound=Hashable)
Timing = TypeVar("Timing")


def interleave(
    ways: Mapping[Way, Callable[[int], Timing]], *, least: int = 3, warm_up: int = 1
) -> dict[Way, list[Timing]]:
    """Timings of so many rounds of `take_turns`, by way; what stands at the same place is of the same round."""
    rounds = list(take_turns(ways, least=least, warm_up=warm_up))
    return {name: [taken[name] for taken in rounds] for name in ways}


def take_turns(
    ways: Mapping[Way, Callable[[int], Timing]],
    seconds: float = 0,
    *,
    least: int = 3,
    warm_up: int = 1,
    first: int = 0,
    limit: float = math.inf,
) -> Iterator[dict[Way, Timing]]:
    """Call every way in turn, A B A B, so that a slow moment of the machine falls on all of them alike.

    Before the rounds that are yielded there are some to warm up, which do not count. From the start of those, no round
    begins that, as long as the one before, would end after so many seconds; but there are at least `least`, unless
    they would end after the `limit`, and otherwise at most `MOST`. Every way is given the number of the round, from
    `first`.
    """
    start = time.perf_counter()
    for number in range(warm_up + max(least, MOST) if ways else 0):
        began = time.perf_counter()
        taken = {name: way(first + number) for name, way in ways.items()}
        lasted = time.perf_counter() - began
        if number >= warm_up:
            yield taken
        bound = limit if number + 1 < warm_up + least else seconds
        if time.perf_counter() + lasted - start > bound:
            return


@dataclass(frozen=True)
class Summary:
    """Percentiles of timings, in their unit. The minimum says most about the code, the tail about the machine."""

    count: int
    minimum: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, timings: Sequence[float]) -> Self:
        """Interpolate linearly; raises ValueError if there are no timings."""
        if not timings:
            raise ValueError("there are no timings to summarise")
        return cls(len(timings), *map(float, np.percentile(timings, (0, 50, 95, 99))))


@dataclass(frozen=True)
class Ratio:
    """How many times as long the baseline takes: the median of baseline / candidate, round by round, above 1 is faster.

    `low` and `high` are the ends of the median's 95 % interval (percentile bootstrap over rounds). `of_minima` is the
    baseline's shortest time over the candidate's.
    """

    median: float
    low: float
    high: float
    of_minima: float

    @classmethod
    def of(cls, baseline: Sequence[float], candidate: Sequence[float]) -> Self:
        """From the timings of the same rounds, in order; raises ValueError if they do not pair, or there are none."""
        if not baseline or len(baseline) != len(candidate):
            raise ValueError(f"{len(baseline)} timings of the baseline do not pair with {len(candidate)}")
        ratios = np.asarray(baseline) / np.asarray(candidate)  # [rounds]
        chosen = np.random.default_rng(_SEED).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[chosen], axis=1), (2.5, 97.5))
        return cls(float(np.median(ratios)), float(low), float(high), min(baseline) / min(candidate))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
