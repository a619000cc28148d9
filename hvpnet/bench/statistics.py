"""Numbers from timings: percentiles, and ratios pair by pair with a bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Summary:
    """Of `count` timings, in their unit. The minimum says most about the code, the tail about the machine."""

    count: int
    minimum: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, timings: Sequence[float]) -> Self:
        """Percentiles by linear interpolation.

        Raises:
            ValueError: there are no timings.
        """
        if not timings:
            raise ValueError("there are no timings to summarise")
        p50, p95, p99 = (float(value) for value in np.percentile(timings, (50, 95, 99)))
        return cls(len(timings), float(min(timings)), p50, p95, p99)


@dataclass(frozen=True)
class Ratio:
    """How many times as long the baseline takes: above 1 is faster than the baseline.

    Attributes:
        median: of baseline / candidate, round by round.
        low: lower end of the 95 % interval of that median (percentile bootstrap over rounds).
        high: its upper end.
        of_minima: the baseline's shortest time over the candidate's.
    """

    median: float
    low: float
    high: float
    of_minima: float

    @classmethod
    def of(cls, baseline: Sequence[float], candidate: Sequence[float]) -> Self:
        """From the timings of the same rounds, in order.

        Raises:
            ValueError: there are no rounds, or not as many of one as of the other.
        """
        if not baseline or len(baseline) != len(candidate):
            raise ValueError(f"{len(baseline)} timings of the baseline do not pair with {len(candidate)}")
        ratios = np.asarray(baseline) / np.asarray(candidate)  # [rounds]
        chosen = np.random.default_rng(_SEED).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
        low, high = np.percentile(np.median(ratios[chosen], axis=1), (2.5, 97.5))
        return cls(float(np.median(ratios)), float(low), float(high), min(baseline) / min(candidate))
