"""The service in one process: tweets are prepared in threads, and each bundle has a thread that runs its backend.

A backend that is idle runs what comes at once. What comes while it is busy gathers, and is one batch afterwards.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.health import still_answers
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.preparation import Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.types import Rejection, Result, Tweet

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Call:
    """Prepared tweets, and since when (`time.perf_counter`) they have been waiting for the backend."""

    tweets: Sequence[Prepared]
    since: float = field(default_factory=time.perf_counter)
    results: "Future[list[Result]]" = field(default_factory=Future)


class Batcher:
    """Runs a pipeline in a thread of its own, on all that waits, up to `size` tweets.

    Args:
        name: of the bundle.
        pipeline: closed at the end.
        size: tweets in one run.
        metrics: where runs are counted.
        gave_up: called with the error, in the thread, once the backend fails whatever it is asked.
    """

    def __init__(
        self, name: str, pipeline: Pipeline, size: int, metrics: Metrics, gave_up: Callable[[Exception], None]
    ) -> None:
        self._name, self._pipeline, self._size, self._metrics = name, pipeline, size, metrics
        self._gave_up = gave_up
        self.failure: Exception | None = None
        self._started: float | None = None  # of the run that goes on
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._next: deque[_Call | None] = deque()  # taken out of the queue, but too large for the batch before
        self._thread = Thread(target=self._work, name=f"hvpnet-{name}", daemon=True)
        self._thread.start()

    def submit(self, tweets: Sequence[Prepared]) -> "list[Future[list[Result]]]":
        """Let tweets be run: their results in order, one list for each part that fits a batch.

        Raises:
            UnavailableError: the backend has failed for good.
        """
        self._check()
        calls = [_Call(tweets[first : first + self._size]) for first in range(0, len(tweets), self._size)]
        for call in calls:
            self._waiting.put(call)
        return [call.results for call in calls]

    def close(self) -> None:
        """Run what waits, and free the backend."""
        self._waiting.put(None)
        self._thread.join()
        self._pipeline.close()

    def stuck(self, seconds: float) -> bool:
        """Whether a run has been going on for longer."""
        started = self._started
        return started is not None and time.perf_counter() - started > seconds

    def _work(self) -> None:
        while calls := self._batch():
            running = [call for call in calls if call.results.set_running_or_notify_cancel()]
            if running:
                self._answer(running)

    def _answer(self, calls: Sequence[_Call]) -> None:
        try:
            self._check()
            results = iter(self._run(calls))
            for call in calls:
                call.results.set_result([next(results) for _ in call.tweets])
        except Exception as error:
            for call in calls:
                if not call.results.done():
                    call.results.set_exception(error)
            if self.failure is None and not still_answers(self._pipeline):
                self.failure = error
                self._gave_up(error)

    def _check(self) -> None:
        """A backend that has failed for good is not asked again."""
        if self.failure is not None:
            raise UnavailableError(f"the backend of {self._name} failed for good: {self.failure}")

    def _batch(self) -> list[_Call]:
        """What waits, and at least one call; none at the end."""
        first = self._next.popleft() if self._next else self._waiting.get()
        if first is None:
            return []
        calls, count = [first], len(first.tweets)
        while count < self._size:
            try:
                call = self._waiting.get_nowait()
            except Empty:
                break
            if call is None or count + len(call.tweets) > self._size:
                self._next.append(call)
                break
            calls.append(call)
            count += len(call.tweets)
        return calls

    def _run(self, calls: Sequence[_Call]) -> list[Result]:
        self._started = start = time.perf_counter()
        cache = self._pipeline.cache
        for call in calls:
            self._metrics.stage(self._name, "queue", start - call.since)
        hits, misses = cache.hits, cache.misses
        tweets = [tweet for call in calls for tweet in call.tweets]
        try:
            results = self._pipeline.run(tweets)
        finally:
            self._started = None
        self._metrics.batch(self._name, len(tweets), cache.hits - hits, cache.misses - misses)
        self._metrics.stage(self._name, "inference", time.perf_counter() - start)
        return results


class InProcess:
    """An `Extractor` with the pipelines of all bundles in this process.

    Args:
        settings: of the service.
        gave_up: called with the error, from some thread, once a backend has failed for good.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not.
    """

    def __init__(self, settings: Settings, gave_up: Callable[[Exception], None]) -> None:
        self._registry, self._answer_seconds = CollectorRegistry(), settings.limits.answer_seconds
        self.own_metrics = Metrics(PrometheusInstruments(self._registry))
        self._threads = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, "hvpnet-prepare")
        self._preparations: dict[str, Preparation] = {}
        self._batchers: dict[str, Batcher] = {}
        try:
            for name, path in settings.bundles.items():
                pipeline = Pipeline.load(
                    path,
                    settings.backend,
                    precision=settings.precision,
                    cache_bytes=settings.cache_bytes,
                    threads=settings.threads,
                )
                preparer = Preparer(
                    pipeline.bundle,
                    window=settings.window,
                    max_pixels=settings.limits.picture_pixels,
                    max_length=pipeline.backend.max_length,
                    jpeg=settings.jpeg,
                    known=pipeline.cache,
                )
                self._preparations[name] = Preparation(name, preparer, self.own_metrics)
                self._batchers[name] = Batcher(name, pipeline, settings.batching.size, self.own_metrics, gave_up)
        except BaseException:
            self.close()
            raise

    async def extract(self, bundle: str, tweets: Sequence[Tweet]) -> Sequence[Result | Rejection]:
        """See `Extractor`.

        Raises:
            UnavailableError: the backend has failed for good.
            BackendError: the backend failed.
        """
        stop = Event()
        preparing = self._threads.submit(self._preparations[bundle], tweets, stop.is_set)
        (prepared,) = await _results([preparing], stop)
        ready = [each for each in prepared if isinstance(each, Prepared)]
        if len(ready) < len(prepared):
            return [each for each in prepared if isinstance(each, Rejection)]
        return [result for part in await _results(self._batchers[bundle].submit(ready), stop) for result in part]

    async def missing(self) -> list[str]:
        """See `Extractor`: bundles whose backend has failed for good, or has not come back from a run."""
        return [
            name
            for name, batcher in self._batchers.items()
            if batcher.failure is not None or batcher.stuck(self._answer_seconds)
        ]

    async def metrics(self) -> bytes:
        """See `Extractor`."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Run what waits, and free the backends."""
        self._threads.shutdown(cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.close()


async def _results(futures: Sequence["Future[_T]"], stop: Event) -> list[_T]:
    """Wait for threads. Cancelled, what has not begun is dropped, the rest is told to stop and waited for."""
    waiting = [asyncio.wrap_future(future) for future in futures]
    try:
        await asyncio.wait(waiting)
    except asyncio.CancelledError:
        stop.set()
        for future in futures:
            future.cancel()
        await asyncio.wait(waiting)
        raise
    finally:
        for each in waiting:  # or asyncio would log that nobody asked for the others' exceptions
            if each.done() and not each.cancelled():
                each.exception()
    return [each.result() for each in waiting]
