"""From the tweets of a request to what the backend reads: tokens and pixels."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Executor
from functools import partial
from itertools import groupby
from threading import Lock
from typing import Protocol

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.grounding.finder import Finding
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.preprocessing.tweet_pictures import WholePicture
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.types import FoundObject, Mention, Rejection, Tweet


class MeasuredFinder:
    """A `Finder` that counts what it finds, and how long that takes. Thread-safe.

    Args:
        name: of the bundle.
        finder: finds the objects.
        metrics: where it is counted.
    """

    def __init__(self, name: str, finder: Finding, metrics: Metrics) -> None:
        self._name, self._finder, self._metrics = name, finder, metrics
        self._lock, self._hits, self._misses = Lock(), finder.hits, finder.misses

    def __call__(
        self, picture: WholePicture, words: Sequence[str], pairs: Sequence[Sequence[Mention]]
    ) -> list[tuple[FoundObject, ...]]:
        """See `Finding`. The time includes waiting for another thread's search."""
        start = time.perf_counter()
        try:
            return self._finder(picture, words, pairs)
        finally:
            seconds = time.perf_counter() - start
            with self._lock:  # other threads may have counted meanwhile: nothing is lost, nor counted twice
                hits, misses = self._finder.hits - self._hits, self._finder.misses - self._misses
                self._hits, self._misses = self._hits + hits, self._misses + misses
            self._metrics.grounded(self._name, hits, misses, seconds)


class Prepare(Protocol):
    """Prepares one tweet, for one bundle or for two."""

    def __call__(self, tweet: Tweet, /) -> Prepared:
        """See `Preparer`."""
        ...

    def forget(self) -> None:
        """See `Preparer`."""
        ...


class Preparation:
    """Tweets of one bundle to what the backend reads.

    Args:
        name: of the bundle.
        prepare: of the bundle.
        metrics: where the time it takes is counted.
        threads: prepare several pictures of a request at the same time, which pays where they wait for something
            elsewhere; by default they are prepared one by one.
    """

    def __init__(self, name: str, prepare: Prepare, metrics: Metrics, threads: Executor | None = None) -> None:
        self._name, self._prepare, self._metrics = name, prepare, metrics
        self._map = map if threads is None else threads.map

    def __call__(
        self, tweets: Sequence[Tweet], stopped: Callable[[], bool] = lambda: False
    ) -> list[Prepared] | list[Rejection]:
        """Prepare the tweets of one request.

        Bad tweets are an answer, not an exception: they are everyday, and Ray logs the traceback of an exception.

        Args:
            tweets: of the request.
            stopped: asked before each tweet; once it says so, nobody waits for the answer.

        Returns:
            All of them prepared, or the reasons why some cannot be.

        Raises:
            CancelledError: it was stopped.
        """
        start = time.perf_counter()
        by_picture = sorted(enumerate(tweets), key=_picture)
        groups = [list(group) for _, group in groupby(by_picture, _picture)]
        outcomes: dict[int, Prepared | Rejection] = {}
        try:
            for part in self._map(partial(self._outcomes, stopped), groups):
                outcomes |= part
        finally:
            self._prepare.forget()
        self._metrics.stage(self._name, "prepare", time.perf_counter() - start)
        ordered = [outcomes[number] for number in range(len(tweets))]
        rejections = [outcome for outcome in ordered if isinstance(outcome, Rejection)]
        return rejections or [outcome for outcome in ordered if isinstance(outcome, Prepared)]

    def _outcomes(
        self, stopped: Callable[[], bool], tweets: Iterable[tuple[int, Tweet]]
    ) -> dict[int, Prepared | Rejection]:
        """Tweets that show one picture come one after the other, and so it is decoded once for all their boxes."""
        outcomes: dict[int, Prepared | Rejection] = {}
        for number, tweet in tweets:
            if stopped():
                raise CancelledError
            outcomes[number] = self._outcome(number, tweet)
        return outcomes

    def _outcome(self, number: int, tweet: Tweet) -> Prepared | Rejection:
        """Any other exception than these is a fault of the service, which its log has to show."""
        try:
            prepared = self._prepare(tweet)
        except InputError as error:
            return Rejection.of(number, tweet.id, error)
        return prepared.lightened()


def _picture(numbered: tuple[int, Tweet]) -> int:
    return id(numbered[1].image)
