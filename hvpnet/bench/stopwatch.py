"""The stages of an answer, from picture bytes and words to entities."""

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from hvpnet_runtime.types import Tweet

STAGES = ("prepare", "normalise", "vision", "text", "decode")
"""Tokenise, decode and resize pictures; scale their pixels and look up what was seen before; the two networks; Viterbi
and entities."""

GRAPHS = ("vision", "text")
"""The stages of the two networks."""


class Subject(Protocol):
    """What is timed."""

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """Answers the tweets as one batch; seconds by stage, which add up to the whole answer."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Stopwatch:
    """Splits a stretch of time into stages without a gap between them.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin a new stretch."""
        self._stages = dict.fromkeys(STAGES, 0.0)
        self._last = self._clock()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap was this stage."""
        now = self._clock()
        self._stages[stage] += now - self._last
        self._last = now

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage so far."""
        return dict(self._stages)


def graph_seconds(stages: Mapping[str, float]) -> float:
    """What the two networks took of an answer."""
    return sum(stages[name] for name in GRAPHS)
