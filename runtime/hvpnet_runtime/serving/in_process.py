"""The service in one process: threads prepare tweets, and one or two of them at a time run the backend of a bundle.

A thread that has prepared a request runs it at once if the backend has a free lane, without a switch to another thread.
What comes while all are busy gathers; whoever runs the backend goes on with it, as one batch.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, get_ident

from prometheus_client import CollectorRegistry, generate_latest

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.errors import StuckError, UnavailableError
from hvpnet_runtime.serving.health import still_answers, still_finds
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.types import Rejection, Result, Tweet

_CLOSE_SECONDS = 60  # for a run of a backend to end


@dataclass(frozen=True)
class _Call:
    """Prepared tweets, and since when (`time.perf_counter`) they have been waiting for the backend."""

    tweets: Sequence[Prepared]
    since: float = field(default_factory=time.perf_counter)
    results: "Future[list[Result]]" = field(default_factory=Future)


class Batcher:
    """Runs a pipeline on all that waits, up to `size` tweets at a time, in the backend's lanes. Thread-safe.

    Attributes:
        lanes: batches that run at the same time.

    Args:
        name: of the bundle.
        pipeline: closed at the end.
        size: tweets in one run.
        metrics: where runs are counted.
        gave_up: called with the error, in the thread that runs, once backend or grounder fails whatever it is asked.
    """

    def __init__(
        self, name: str, pipeline: Pipeline, size: int, metrics: Metrics, gave_up: Callable[[Exception], None]
    ) -> None:
        self._name, self._pipeline, self._size, self._metrics = name, pipeline, size, metrics
        self._gave_up = gave_up
        self.failure: Exception | None = None
        self.lanes = pipeline.backend.lanes
        self._started: dict[int, float] = {}  # of the runs that go on, by thread
        self._waiting: deque[_Call] = deque()
        self._lock, self._running, self._judging = Lock(), 0, Lock()
        self._counted = (0, 0)  # hits and misses of the cache that the metrics have

    def submit(self, tweets: Sequence[Prepared]) -> "list[Future[list[Result]]]":
        """Let tweets wait for `run`: their results in order, one list for each part that fits a batch.

        Raises:
            UnavailableError: the backend has failed for good.
        """
        self._check()
        calls = [_Call(tweets[first : first + self._size]) for first in range(0, len(tweets), self._size)]
        with self._lock:
            self._waiting += calls
        return [call.results for call in calls]

    def run(self) -> None:
        """Run what waits, until nothing does; if threads in all lanes do so already, they take over what waits."""
        while calls := self._take():
            try:
                self._answer(calls)
            finally:
                with self._lock:
                    self._running -= 1

    def stuck(self, seconds: float) -> bool:
        """Whether a run has been going on for longer."""
        with self._lock:
            return any(time.perf_counter() - started > seconds for started in self._started.values())

    def close(self) -> None:
        """Free the backend, once no thread runs it."""
        self._pipeline.close()

    def _take(self) -> list[_Call]:
        """The next batch, which this thread has to run; none if nothing waits, or no lane is free."""
        calls: list[_Call] = []
        with self._lock:
            if self._running == self.lanes:
                return []
            room = self._size
            while self._waiting and len(self._waiting[0].tweets) <= room:
                call = self._waiting.popleft()
                if call.results.set_running_or_notify_cancel():
                    calls.append(call)
                    room -= len(call.tweets)
            self._running += bool(calls)
        return calls

    def _answer(self, calls: Sequence[_Call]) -> None:
        thread = get_ident()
        with self._lock:
            self._started[thread] = time.perf_counter()
        try:
            self._check()
            results = iter(self._results(calls))
            for call in calls:
                call.results.set_result([next(results) for _ in call.tweets])
        except Exception as error:
            for call in calls:
                if not call.results.done():
                    call.results.set_exception(error)
            self._judge("backend", error, lambda: still_answers(self._pipeline))
        finally:
            with self._lock:
                del self._started[thread]

    def not_prepared(self, error: BackendError) -> None:
        """Note that preparing tweets failed, which is the grounder's fault."""
        if (finder := self._pipeline.finder) is not None:
            self._judge("grounder", error, lambda: still_finds(finder))

    def _judge(self, part: str, error: Exception, still_works: Callable[[], bool]) -> None:
        """Give up, once, if a part that failed does not work any more."""
        with self._judging:
            if self.failure is None and not still_works():
                self.failure = BackendError(f"the {part} of {self._name} failed for good: {error}")
                self._gave_up(self.failure)

    def _check(self) -> None:
        """A backend that has failed for good is not asked again."""
        if self.failure is not None:
            raise UnavailableError(str(self.failure))

    def _results(self, calls: Sequence[_Call]) -> list[Result]:
        start = time.perf_counter()
        for call in calls:
            self._metrics.stage(self._name, "queue", start - call.since)
        tweets = [tweet for call in calls for tweet in call.tweets]
        results = self._pipeline.run(tweets)
        self._metrics.batch(self._name, len(tweets), *self._looked_up())
        self._metrics.stage(self._name, "inference", time.perf_counter() - start)
        return results

    def _looked_up(self) -> tuple[int, int]:
        """Hits and misses of the cache since this was last asked, whichever lanes they are of."""
        with self._lock:
            hits, misses = self._counted
            self._counted = self._pipeline.cache.hits, self._pipeline.cache.misses
            return self._counted[0] - hits, self._counted[1] - misses


class _Request:
    """Tweets of one request, and the future of their answers, which threads work on."""

    def __init__(self, tweets: Sequence[Tweet]) -> None:
        self.tweets, self.stop = tweets, Event()
        self.answers: Future[Sequence[Result | Rejection]] = Future()
        self._parts: Sequence[Future[list[Result]]] = ()
        self._lock, self._missing = Lock(), 0

    def follow(self, parts: "Sequence[Future[list[Result]]]") -> None:
        """Answer when all parts are there."""
        self._parts, self._missing = parts, len(parts)
        if not parts:
            self.answers.set_result([])
        for part in parts:
            part.add_done_callback(self._note)
        if self.stop.is_set():  # meanwhile, when there was no part to cancel yet
            self.cancel()

    def cancel(self) -> None:
        """Stop what can be stopped; the answers are an error once nothing works on them any more."""
        self.stop.set()
        for part in self._parts:
            part.cancel()

    def _note(self, _: "Future[list[Result]]") -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        try:
            self.answers.set_result([result for part in self._parts for result in part.result()])
        except Exception as error:
            self.answers.set_exception(error)


class InProcess:
    """An `Extractor` with the pipelines of all bundles in this process.

    Args:
        settings: of the service.
        gave_up: called with the error, from some thread, once a backend has failed for good.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not, or its first batch fails.
    """

    def __init__(self, settings: Settings, gave_up: Callable[[Exception], None]) -> None:
        self._registry, self._answer_seconds = CollectorRegistry(), settings.limits.answer_seconds
        self.own_metrics = Metrics(PrometheusInstruments(self._registry))
        self._working: set[Future[None]] = set()
        self._preparations: dict[str, Preparation] = {}
        self._batchers: dict[str, Batcher] = {}
        try:
            for name, path in settings.bundles.items():
                self._add(name, path, settings, gave_up)
        except BaseException:
            self._close_batchers()
            raise
        preparing = settings.threads or os.cpu_count() or 1
        running = sum(batcher.lanes for batcher in self._batchers.values())
        self._threads = ThreadPoolExecutor(preparing + running, "hvpnet-work")

    def _add(self, name: str, path: Path, settings: Settings, gave_up: Callable[[Exception], None]) -> None:
        """Load a bundle, ready for its first request."""
        pipeline = Pipeline.load(
            path,
            settings.backend,
            precision=settings.precision,
            cache_bytes=settings.cache_bytes,
            threads=settings.threads,
            device=settings.device,
            objects=settings.objects,
        )
        with ExitStack() as undo:
            undo.callback(pipeline.close)
            pipeline.warm_up()
            finder = pipeline.finder
            preparer = Preparer(
                pipeline.bundle,
                window=settings.window,
                max_pixels=settings.limits.picture_pixels,
                max_length=pipeline.backend.max_length,
                jpeg=settings.jpeg,
                known=pipeline.cache,
                objects=settings.objects,
                find=None if finder is None else MeasuredFinder(name, finder, self.own_metrics),
            )
            self._preparations[name] = Preparation(name, preparer, self.own_metrics)
            self._batchers[name] = Batcher(name, pipeline, settings.batching.size, self.own_metrics, gave_up)
            undo.pop_all()

    async def extract(self, bundle: str, tweets: Sequence[Tweet]) -> Sequence[Result | Rejection]:
        """See `Extractor`.

        Raises:
            UnavailableError: the backend has failed for good.
            BackendError: the backend failed.
        """
        request = _Request(tweets)
        work = self._threads.submit(self._work, bundle, request)
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        answers = asyncio.wrap_future(request.answers)
        try:
            await asyncio.wait([answers])
        except asyncio.CancelledError:
            request.cancel()
            if work.cancel():  # before any thread began with it
                request.answers.set_exception(CancelledError())
            await asyncio.wait([answers])
            answers.exception()  # or asyncio would log that nobody asked for it
            raise
        return answers.result()

    def _work(self, bundle: str, request: _Request) -> None:
        """Prepare a request; run it, and what waits with it, unless another thread runs the backend."""
        try:
            prepared = self._preparations[bundle](request.tweets, request.stop.is_set)
            ready = [each for each in prepared if isinstance(each, Prepared)]
            if len(ready) < len(prepared):
                request.answers.set_result([each for each in prepared if isinstance(each, Rejection)])
                return
            request.follow(self._batchers[bundle].submit(ready))
        except Exception as error:
            request.answers.set_exception(error)
            if isinstance(error, BackendError):
                self._batchers[bundle].not_prepared(error)
            return
        self._batchers[bundle].run()

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

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait for what runs, and free the backends.

        Raises:
            StuckError: something still runs after so many seconds; the backends are left to it.
        """
        self._threads.shutdown(wait=False, cancel_futures=True)
        _, running = wait(list(self._working), seconds)
        if running:
            raise StuckError("a backend has not come back from a run, so the service ends without it")
        self._close_batchers()

    def _close_batchers(self) -> None:
        with ExitStack() as held:  # all of them, whatever fails meanwhile
            for batcher in self._batchers.values():
                held.callback(batcher.close)
