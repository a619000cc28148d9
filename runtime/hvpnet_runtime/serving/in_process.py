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
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.batcher import Batcher
from hvpnet_runtime.serving.errors import StuckError
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.posts import PostPreparers
from hvpnet_runtime.serving.preparation import MeasuredFinder, Preparation
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.triples.posts import AskedPost, PreparedPost
from hvpnet_runtime.types import EntityResult, Rejection, Result, TripleResult, Tweet

_Answer = TypeVar("_Answer")

_CLOSE_SECONDS = 60  # for a run of a backend to end


class _Request(Generic[_Answer]):
    """Tweets of one request, and the future of their answers, which threads work on."""

    def __init__(self, tweets: Sequence[Tweet]) -> None:
        self.tweets, self.stop = tweets, Event()
        self.answers: Future[Sequence[_Answer | Rejection]] = Future()
        self._parts: Sequence[Future[list[Result]]] = ()
        self._then: Callable[[list[Result]], None] = lambda _: None
        self._lock, self._missing = Lock(), 0

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
        return await self._answered(_Request[Result](tweets), partial(self._work, bundle))

    async def relate(self, entities: str, relations: str, posts: Sequence[Tweet]) -> Sequence[TripleResult | Rejection]:
        """See `Extractor`.

        Raises:
            InputError: the two do not go together.
            UnavailableError: a backend has failed for good.
            BackendError: a backend failed.
        """
        return await self._answered(_Request[TripleResult](posts), partial(self._relate, entities, relations))

    async def _answered(
        self, request: "_Request[_Answer]", work_on: "Callable[[_Request[_Answer]], None]"
    ) -> Sequence[_Answer | Rejection]:
        work = self._begin(work_on, request)
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

    def _work(self, bundle: str, request: "_Request[Result]") -> None:
        """Prepare a request; run it, and what waits with it, unless another thread runs the backend."""
        try:
            prepared = self._preparations[bundle](request.tweets, request.stop.is_set)
            ready = [each for each in prepared if isinstance(each, Prepared)]
            if len(ready) < len(prepared):
                request.answers.set_result([each for each in prepared if isinstance(each, Rejection)])
                return
            request.follow(self._batchers[bundle].submit(ready), request.answers.set_result)
        except Exception as error:
            request.answers.set_exception(error)
            if isinstance(error, BackendError):
                self._batchers[bundle].not_prepared(error)
            return
        self._batchers[bundle].run()

    def _begin(self, work_on: Callable[..., None], *given: object) -> "Future[None]":
        """Work in a thread, which the end of the service waits for."""
        work = self._threads.submit(work_on, *given)
        self._working.add(work)
        work.add_done_callback(self._working.discard)
        return work

    def _relate(self, entities: str, relations: str, request: "_Request[TripleResult]") -> None:
        """Prepare posts and run them, as `_work` does; `_ask` goes on in a thread when their entities are there."""
        try:
            preparer = self._posts.of(entities, relations)
            with self._grounder_of(entities, relations):
                prepared = Preparation(entities, preparer, self.own_metrics)(request.tweets, request.stop.is_set)
            posts = [each for each in prepared if isinstance(each, PreparedPost)]
            if len(posts) < len(prepared):
                request.answers.set_result([each for each in prepared if isinstance(each, Rejection)])
                return

            def go_on(found: list[Result]) -> None:
                self._begin(self._ask, entities, relations, request, posts, found)

            request.follow(self._batchers[entities].submit(posts), go_on)
        except Exception as error:
            request.answers.set_exception(error)
            return
        self._batchers[entities].run()

    def _ask(
        self,
        entities: str,
        relations: str,
        request: "_Request[TripleResult]",
        posts: Sequence[PreparedPost],
        found: Sequence[Result],
    ) -> None:
        """Run the pairs of posts, and answer."""
        try:
            preparer, asked = self._posts.of(entities, relations), list[AskedPost]()
            for post, each in zip(posts, found, strict=True):
                request.check()
                if isinstance(each, EntityResult):
                    with self._grounder_of(entities, relations):
                        asked.append(preparer.ask(post, each))
            pairs = [pair for each in asked for pair in each.prepared]
            request.follow(
                self._batchers[relations].submit(pairs),
                lambda told: request.answers.set_result(preparer.settle_all(asked, told)),
            )
        except Exception as error:
            request.answers.set_exception(error)
            return
        self._batchers[relations].run()

    @contextmanager
    def _grounder_of(self, *bundles: str) -> Iterator[None]:
        """Tell the batchers of these bundles what a grounder fails with."""
        try:
            yield
        except BackendError as error:
            for bundle in bundles:
                self._batchers[bundle].not_prepared(error)
            raise

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
