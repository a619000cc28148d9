"""The service in one process: tweets are prepared in threads, and each bundle has a thread that runs its backend.

A backend that is idle runs what comes at once. What comes while it is busy gathers, and is one batch afterwards.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread

from prometheus_client import CollectorRegistry, generate_latest

from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.preparation import Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.types import Rejection, Result, Tweet

_PROBES, _PAUSE_SECONDS = 3, 0.5
"""How often a backend that failed is asked about a tweet of two words before it is given up."""

_log = logging.getLogger(__name__)


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
        self._waiting: SimpleQueue[_Call | None] = SimpleQueue()
        self._next: deque[_Call | None] = deque()  # taken out of the queue, but too large for the batch before
        self._thread = Thread(target=self._work, name=f"hvpnet-{name}", daemon=True)
        self._thread.start()

    def submit(self, tweets: Sequence[Prepared]) -> "list[Future[list[Result]]]":
        """Let tweets be run: their results in order, one list for each part that fits a batch.

        Raises:
            UnavailableError: the backend has failed for good.
        """
        if self.failure is not None:
            raise UnavailableError(f"the backend of {self._name} failed for good: {self.failure}")
        calls = [_Call(tweets[first : first + self._size]) for first in range(0, len(tweets), self._size)]
        for call in calls:
            self._waiting.put(call)
        return [call.results for call in calls]

    def close(self) -> None:
        """Run what waits, and free the backend."""
        self._waiting.put(None)
        self._thread.join()
        self._pipeline.close()

    def _work(self) -> None:
        while calls := self._batch():
            running = [call for call in calls if call.results.set_running_or_notify_cancel()]
            if not running:
                continue
            try:
                results = iter(self._run(running))
                for call in running:
                    call.results.set_result([next(results) for _ in call.tweets])
            except Exception as error:
                for call in running:
                    if not call.results.done():
                        call.results.set_exception(error)
                if not self._answers():
                    self.failure = error
                    self._gave_up(error)

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
        start, cache = time.perf_counter(), self._pipeline.cache
        for call in calls:
            self._metrics.stage(self._name, "queue", start - call.since)
        hits, misses = cache.hits, cache.misses
        tweets = [tweet for call in calls for tweet in call.tweets]
        results = self._pipeline.run(tweets)
        self._metrics.batch(self._name, len(tweets), cache.hits - hits, cache.misses - misses)
        self._metrics.stage(self._name, "inference", time.perf_counter() - start)
        return results

    def _answers(self) -> bool:
        """Whether the backend still answers anything."""
        probe = self._pipeline.prepare(Tweet(words=["a", "b"], head=(0, 1), tail=(1, 2)))
        for attempt in range(_PROBES):
            time.sleep(attempt * _PAUSE_SECONDS)
            try:
                self._pipeline.run([probe])
            except Exception:
                _log.warning("the backend of %s fails", self._name, exc_info=True)
            else:
                return True
        return False


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
        self._registry = CollectorRegistry()
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
        prepared = await asyncio.get_running_loop().run_in_executor(self._threads, self._preparations[bundle], tweets)
        ready = [each for each in prepared if isinstance(each, Prepared)]
        if len(ready) < len(prepared):
            return [each for each in prepared if isinstance(each, Rejection)]
        parts = [asyncio.wrap_future(part) for part in self._batchers[bundle].submit(ready)]
        return [result for part in await asyncio.gather(*parts) for result in part]

    async def missing(self) -> list[str]:
        """See `Extractor`: bundles whose backend has failed for good."""
        return [name for name, batcher in self._batchers.items() if batcher.failure is not None]

    async def metrics(self) -> bytes:
        """See `Extractor`."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Run what waits, and free the backends."""
        self._threads.shutdown(cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.close()
