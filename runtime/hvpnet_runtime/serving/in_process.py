"""The service in one process: threads prepare tweets, and one or two of them at a time run the backend of a bundle.

A thread that has prepared a request runs it at once if the backend has a free lane, without a switch to another thread.
What comes while all are busy gathers; whoever runs the backend goes on with it, as one batch.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Generic, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.batcher import Batcher
from hvpnet_runtime.serving.errors import StuckError, UnavailableError
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.posts import PostPreparers
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.triples.posts import AskedPost, PostPreparer, PreparedPost, all_pairs
from hvpnet_runtime.types import Rejection, Result, TripleResult, Tweet

_Answer = TypeVar("_Answer")
_Then: TypeAlias = Callable[[list[Prepared], list[Result]], None]
"""What goes on with a request, from what was prepared and what came of it."""

_CLOSE_SECONDS = 60  # for a run of a backend to end


class _Request(Generic[_Answer]):
    """Tweets of one request, and the future of their answers, which threads work on."""

    def __init__(self, tweets: Sequence[Tweet]) -> None:
        self.tweets, self.stop = tweets, Event()
        self.answers: Future[Sequence[_Answer | Rejection]] = Future()
        self._work: Future[None] | None = None
        self._parts: Sequence[Future[list[Result]]] = ()
        self._then: Callable[[list[Result]], None] = lambda _: None
        self._lock, self._missing = Lock(), 0

    def work_on(self, work: "Future[None]") -> None:
        """Note what a thread is to do. If none ever begins with it, the answers are an error."""
        self._work = work
        work.add_done_callback(lambda done: self.answers.set_exception(_stopping()) if done.cancelled() else None)

    def follow(self, parts: "Sequence[Future[list[Result]]]", then: Callable[[list[Result]], None]) -> None:
        """Go on when all parts are there: with `then` and their results, or with the error of one as the answer."""
        self._parts, self._missing, self._then = parts, len(parts), then
        if not parts:
            self._go_on()
        for part in parts:
            part.add_done_callback(self._note)
        if self.stop.is_set():  # meanwhile, when there was no part to cancel yet
            self.cancel()

    def check(self) -> None:
        """Raise CancelledError if it was stopped."""
        if self.stop.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Stop what can be stopped; the answers are an error once nothing works on them any more."""
        self.stop.set()
        if self._work is not None:
            self._work.cancel()
        for part in self._parts:
            part.cancel()

    def _note(self, _: "Future[list[Result]]") -> None:
        with self._lock:
            self._missing -= 1
            if self._missing:
                return
        self._go_on()

    def _go_on(self) -> None:
        try:
            self._then([result for part in self._parts for result in part.result()])
        except Exception as error:
            self.answers.set_exception(error)


def _stopping() -> UnavailableError:
    return UnavailableError("the service is stopping; try again later, or elsewhere")


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
        self._preparers: dict[str, Preparer] = {}
        self._bundles: dict[str, Bundle] = {}
        self._posts = PostPreparers(self._bundles, self._preparers, settings.triples)
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
            self._bundles[name], self._preparers[name] = pipeline.bundle, preparer
            self._preparations[name] = Preparation(name, preparer, self.own_metrics)
            self._batchers[name] = Batcher(name, pipeline, settings.batching.size, self.own_metrics, gave_up)
            undo.pop_all()

    async def extract(self, bundle: str, tweets: Sequence[Tweet]) -> Sequence[Result | Rejection]:
        """See `Extractor`.

        Raises:
            UnavailableError: the backend has failed for good.
            BackendError: the backend failed.
        """
        request = _Request[Result](tweets)

        def answer(_: object, results: list[Result]) -> None:
            request.answers.set_result(results)

        return await self._answered(request, (bundle,), self._preparations[bundle], answer)

    async def relate(self, entities: str, relations: str, posts: Sequence[Tweet]) -> Sequence[TripleResult | Rejection]:
        """See `Extractor`.

        Raises:
            UnknownBundleError: the two do not go together.
            UnavailableError: a backend has failed for good.
            BackendError: a backend failed.
        """
        request, bundles = _Request[TripleResult](posts), (entities, relations)
        preparer = self._posts.of(entities, relations)
        preparation = Preparation(entities, preparer, self.own_metrics)

        def ask(posts: list[Prepared], found: list[Result]) -> None:
            self._begin(request, self._ask, bundles, preparer, posts, found)

        return await self._answered(request, bundles, preparation, ask)

    async def _answered(
        self, request: "_Request[_Answer]", bundles: Sequence[str], prepare: Preparation, then: _Then
    ) -> Sequence[_Answer | Rejection]:
        self._begin(request, self._work, bundles, prepare, then)
        answers = asyncio.wrap_future(request.answers)
        try:
            await asyncio.wait([answers])
        except asyncio.CancelledError:
            request.cancel()
            await asyncio.wait([answers])
            answers.exception()  # or asyncio would log that nobody asked for it
            raise
        return answers.result()

    def _begin(self, request: "_Request[_Answer]", work: Callable[..., None], *given: object) -> None:
        """Work on a request in a thread, which the end of the service waits for."""
        try:
            begun = self._threads.submit(work, request, *given)
        except RuntimeError as error:  # the threads are told to end
            raise _stopping() from error
        self._working.add(begun)
        begun.add_done_callback(self._working.discard)
        request.work_on(begun)

    def _work(self, request: "_Request[_Answer]", bundles: Sequence[str], prepare: Preparation, then: _Then) -> None:
        """Prepare a request; run it by the first of its bundles, and what waits with it, unless other threads do."""
        with self._failures_of(request, bundles):
            prepared = prepare(request.tweets, request.stop.is_set)
            ready = [each for each in prepared if isinstance(each, Prepared)]
            if len(ready) < len(prepared):
                request.answers.set_result([each for each in prepared if isinstance(each, Rejection)])
            else:
                request.follow(self._batchers[bundles[0]].submit(ready), partial(then, ready))
        self._batchers[bundles[0]].run()

    def _ask(
        self,
        request: "_Request[TripleResult]",
        bundles: Sequence[str],
        preparer: PostPreparer,
        posts: Sequence[Prepared],
        found: Sequence[Result],
    ) -> None:
        """Run the pairs of posts whose entities are found, and answer."""
        _, relations = bundles
        with self._failures_of(request, bundles):
            request.check()
            asked: list[AskedPost] = []
            for each in preparer.ask([post for post in posts if isinstance(post, PreparedPost)], found):
                request.check()
                asked.append(each)
            request.follow(
                self._batchers[relations].submit(all_pairs(asked)),
                lambda told: request.answers.set_result(preparer.settle_all(asked, told)),
            )
        self._batchers[relations].run()

    @contextmanager
    def _failures_of(self, request: "_Request[_Answer]", bundles: Sequence[str]) -> Iterator[None]:
        """Answer a request with what it fails of; where a grounder does, the batchers of these bundles are told."""
        try:
            yield
        except Exception as error:
            request.answers.set_exception(error)
            if isinstance(error, BackendError):
                for bundle in bundles:
                    self._batchers[bundle].not_prepared(error)

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

    def refuse(self) -> None:
        """Refuse what comes, what no thread has begun with, and what waits for a backend; what runs goes on."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for batcher in self._batchers.values():
            batcher.refuse(_stopping())

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Wait for what runs, and free the backends.

        Raises:
            StuckError: something still runs after so many seconds; the backends are left to it.
        """
        self.refuse()
        _, running = wait(list(self._working), seconds)
        if running:
            raise StuckError("a backend has not come back from a run, so the service ends without it")
        self._close_batchers()

    def _close_batchers(self) -> None:
        with ExitStack() as held:  # all of them, whatever fails meanwhile
            for batcher in self._batchers.values():
                held.callback(batcher.close)
