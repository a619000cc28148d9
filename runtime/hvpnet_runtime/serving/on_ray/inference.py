"""The deployment that runs a backend: it loads a bundle once, and batches what all requests want of it."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ray import serve

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.serving.health import still_answers
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.settings import Batching
from hvpnet_runtime.types import Rejection, Result

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Call:
    """Prepared tweets, and since when (`time.perf_counter`) they have been waiting for the backend."""

    tweets: Sequence[Prepared]
    since: float


def count_tweets(calls: Sequence[Call]) -> int:
    """How large a batch is, for Ray Serve."""
    return sum(len(call.tweets) for call in calls)


class Inference:
    """One loaded bundle.

    Args:
        name: of the bundle.
        path: its folder.
        backend: see `Pipeline.load`, and so for the rest.
        precision: of the graphs.
        threads: of one run.
        cache_bytes: limit of the prefix cache.
        answer_seconds: after which a run counts as one that does not come back.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not, or its first batch fails.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        backend: str,
        precision: str | None,
        threads: int | None,
        cache_bytes: int,
        answer_seconds: float,
    ) -> None:
        self._pipeline = Pipeline.load(
            path,
            backend,
            precision=precision,
            cache_bytes=cache_bytes,
            threads=threads,
            objects="given",  # those that are found, the preparation finds
        )
        if self._pipeline.backend.max_length is not None:  # the preparation, elsewhere, knows the bundle's limit only
            raise BackendError(
                f"the engine of {path} was built for short texts: hvpnet build without --max-seq builds one to serve"
            )
        self._pipeline.warm_up()  # before Ray Serve sends requests here
        self._name, self._metrics, self._size = name, Metrics(RayInstruments()), Batching().size
        self._thread = ThreadPoolExecutor(1, "hvpnet-inference")  # one batch at a time, on a GPU too
        self._failure: Exception | None = None
        self._started, self._answer_seconds = math.inf, answer_seconds  # of the run that goes on
        self._idle = asyncio.Event()
        self._idle.set()

    def reconfigure(self, batching: dict[str, Any]) -> None:
        """Ray Serve calls this at the start, and whenever the settings of batching change in a running service."""
        settings = Batching(**batching)
        self._size = settings.size
        self._run.set_max_batch_size(settings.size)
        self._run.set_batch_wait_timeout_s(settings.wait_ms / 1000)

    def check_health(self) -> None:
        """Ray Serve calls this now and then, and replaces the replica if it raises.

        Raises:
            BackendError: the backend has failed for good, or does not come back from a run.
        """
        if self._failure is not None:
            raise BackendError(f"the backend of {self._name} failed for good: {self._failure}") from self._failure
        if time.perf_counter() - self._started > self._answer_seconds:
            raise BackendError(f"the backend of {self._name} has not come back from a run")

    async def __call__(self, prepared: list[Prepared] | list[Rejection]) -> list[Result] | list[Rejection]:
        """Run what the preparation made of tweets; what it rejected goes back as it came.

        Raises:
            BackendError: the backend failed.
        """
        tweets = [each for each in prepared if isinstance(each, Prepared)]
        if len(tweets) < len(prepared):
            return [each for each in prepared if isinstance(each, Rejection)]
        since = time.perf_counter()
        # Ray's batcher closes a batch when its wait is over, even if the backend is busy: under load it would queue up
        # small batches. Whoever comes while the backend runs waits here, and all of them enter the batcher together.
        await self._idle.wait()
        calls = [Call(tweets[first : first + self._size], since) for first in range(0, len(tweets), self._size)]
        return [result for results in await asyncio.gather(*map(self._run, calls)) for result in results]

    @serve.batch(max_batch_size=Batching().size, batch_wait_timeout_s=0, batch_size_fn=count_tweets)  # type: ignore[untyped-decorator]
    async def _run(self, calls: list[Call]) -> list[list[Result]]:
        self._idle.clear()
        try:
            self._started = start = time.perf_counter()
            for call in calls:
                self._metrics.stage(self._name, "queue", start - call.since)
            tweets = [tweet for call in calls for tweet in call.tweets]
            cache = self._pipeline.cache
            hits, misses = cache.hits, cache.misses
            results = await self._in_thread(self._pipeline.run, tweets)
            self._metrics.batch(self._name, len(tweets), cache.hits - hits, cache.misses - misses)
            self._metrics.stage(self._name, "inference", time.perf_counter() - start)
        except Exception as error:
            if self._failure is None and not await self._in_thread(still_answers, self._pipeline):
                self._failure = error
            raise
        finally:
            self._started = math.inf
            self._idle.set()
        rest = iter(results)
        return [[next(rest) for _ in call.tweets] for call in calls]

    async def _in_thread(self, function: Callable[[_In], _Out], argument: _In) -> _Out:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, argument)
