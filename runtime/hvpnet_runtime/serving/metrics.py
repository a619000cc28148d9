"""What the service measures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TWEETS = (1, 2, 4, 8, 16, 32, 64, 128)

Record: TypeAlias = Callable[[float, Mapping[str, str]], None]
"""Adds a value to an instrument, under these labels."""


class Instruments(Protocol):
    """Makes instruments, whose values somebody collects."""

    def counter(self, name: str, says: str, labels: Sequence[str]) -> Record:
        """A sum."""
        ...

    def histogram(self, name: str, says: str, bounds: Sequence[float], labels: Sequence[str]) -> Record:
        """How many values lie below each bound."""
        ...


class PrometheusInstruments:
    """Instruments of one process, collected by a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, says: str, labels: Sequence[str]) -> Record:
        """See `Instruments`."""
        made = Counter(name, says, labels, registry=self._registry)
        return lambda value, tags: made.labels(**tags).inc(value)

    def histogram(self, name: str, says: str, bounds: Sequence[float], labels: Sequence[str]) -> Record:
        """See `Instruments`."""
        made = Histogram(name, says, labels, buckets=bounds, registry=self._registry)
        return lambda value, tags: made.labels(**tags).observe(value)


class Metrics:
    """What is counted, in whatever instruments."""

    def __init__(self, instruments: Instruments) -> None:
        by_stage, by_bundle = ("bundle", "stage"), ("bundle",)
        says = (
            "Seconds by stage: prepare and total of a request, queue of a call, inference of a batch, and, as a part of"
            " prepare, ground of a picture; on Ray, in that, its ground_queue, and ground_run of a batch"
        )
        self._stage = instruments.histogram("hvpnet_stage_seconds", says, SECONDS, by_stage)
        self._spent = instruments.counter("hvpnet_stage_spent_seconds", "Sum of the stage's seconds", by_stage)
        self._batch = instruments.histogram(
            "hvpnet_batch_tweets", "Tweets in one run of the backend", TWEETS, by_bundle
        )
        self._run = instruments.counter("hvpnet_batched_tweets", "Tweets that the backend ran", by_bundle)
        self._tweets = instruments.counter("hvpnet_tweets", "Tweets answered", by_bundle)
        self._hits = instruments.counter("hvpnet_cache_hits", "Pictures found in the prefix cache", by_bundle)
        self._misses = instruments.counter("hvpnet_cache_misses", "Pictures not in the cache", by_bundle)
        known, searched = "Pictures whose objects were known", "Pictures that were searched for objects"
        self._ground_hits = instruments.counter("hvpnet_ground_hits", known, by_bundle)
        self._ground_misses = instruments.counter("hvpnet_ground_misses", searched, by_bundle)
        self._searches = instruments.histogram(
            "hvpnet_ground_batch_pictures", "Pictures in one run of a grounder on Ray", TWEETS, by_bundle
        )
        self._errors = instruments.counter("hvpnet_errors", "Requests refused or failed", ("type",))

    def stage(self, bundle: str, stage: str, seconds: float) -> None:
        """One stage took so long."""
        tags = {"bundle": bundle, "stage": stage}
        self._stage(seconds, tags)
        self._spent(seconds, tags)

    def batch(self, bundle: str, tweets: int, hits: int, misses: int) -> None:
        """The backend ran once."""
        self._batch(tweets, {"bundle": bundle})
        _add(bundle, (self._run, tweets), (self._hits, hits), (self._misses, misses))

    def grounded(self, bundle: str, hits: int, misses: int, seconds: float) -> None:
        """Objects of a picture were looked for."""
        _add(bundle, (self._ground_hits, hits), (self._ground_misses, misses))
        self.stage(bundle, "ground", seconds)

    def searched(self, bundle: str, pictures: int, seconds: float) -> None:
        """A grounder on Ray ran once."""
        self._searches(pictures, {"bundle": bundle})
        self.stage(bundle, "ground_run", seconds)

    def answered(self, bundle: str, tweets: int, seconds: float) -> None:
        """A request was answered."""
        self._tweets(tweets, {"bundle": bundle})
        self.stage(bundle, "total", seconds)

    def error(self, name: str) -> None:
        """A request was refused, or failed."""
        self._errors(1, {"type": name})


def _add(bundle: str, *counts: tuple[Record, int]) -> None:
    for count, number in counts:
        if number:  # Ray's counters refuse zero
            count(number, {"bundle": bundle})
