"""Runs the backend of one bundle on what waits for it, in as many lanes as it has."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from threading import Lock, get_ident

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.health import still_answers, still_finds
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.types import Result


@dataclass(frozen=True)
class _Call:
    """Prepared tweets, and since when (`time.perf_counter`) they have been waiting for the backend."""

    tweets: Sequence[Prepared]
    since: float = field(default_factory=time.perf_counter)
    results: "Future[list[Result]]" = field(default_factory=Future)


class Batcher:
    """Runs a pipeline on all that waits, up to `size` tweets at a time, in the backend's lanes. Thread-safe.

    Who waits takes turns: of a request that fills many batches, as the pairs of posts do, the second goes behind the
    first ones of all others that wait when its first is taken. What comes later goes behind the second, so that the
    third is not put off for ever.

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
        self._waiting: list[tuple[int, int, _Call]] = []  # a heap: by round, and in a round by the time of coming
        self._round, self._came = 0, count()
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
            for turn, call in enumerate(calls, self._round + 1):
                heappush(self._waiting, (turn, next(self._came), call))
        return [call.results for call in calls]

    def run(self) -> None:
        """Run what waits, until nothing does; if threads in all lanes do so already, they take over what waits."""
        while calls := self._take():
            try:
                self._answer(calls)
            finally:
                with self._lock:
                    self._running -= 1

    def refuse(self, error: Exception) -> None:
        """Answer what waits with an error; what runs goes on."""
        with self._lock:
            refused, self._waiting = self._waiting, []
        for _, _, call in refused:
            if call.results.set_running_or_notify_cancel():
                call.results.set_exception(error)

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
            while self._waiting and len(self._waiting[0][-1].tweets) <= room:
                self._round, _, call = heappop(self._waiting)
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
