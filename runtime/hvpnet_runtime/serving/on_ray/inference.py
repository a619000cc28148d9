"""The deployment that runs a backend: it loads a bundle once, and batches what all requests want of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.serving.health import still_answers
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.on_ray.turns import Turns
from hvpnet_runtime.serving.settings import Batching, Settings
from hvpnet_runtime.types import Rejection, Result


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
        settings: of the service.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not, or its first batch fails.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        path = settings.bundles[name]
        self._pipeline = Pipeline.load(
            path,
            settings.backend,
            precision=settings.precision,
            cache_bytes=settings.cache_bytes,
            threads=settings.threads,
            objects="given",  # those that are found, the preparation finds
        )
        if self._pipeline.backend.max_length is not None:  # the preparation, elsewhere, knows the bundle's limit only
            raise BackendError(
                f"the engine of {path} was built for short texts: hvpnet build without --max-seq builds one to serve"
            )
        self._pipeline.warm_up()  # before Ray Serve sends requests here
        self._name, self._metrics, self._size = name, Metrics(RayInstruments()), Batching().size
        self._turns = Turns(
            f"the backend of {name}", lambda: still_answers(self._pipeline), settings.limits.answer_seconds
        )

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
        self._turns.check()

    async def __call__(self, prepared: list[Prepared] | list[Rejection]) -> list[Result] | list[Rejection]:
        """Run what the preparation made of tweets; what it rejected goes back as it came.

        Raises:
            BackendError: the backend failed.
        """
        tweets = [each for each in prepared if isinstance(each, Prepared)]
        if len(tweets) < len(prepared):
            return [each for each in prepared if isinstance(each, Rejection)]
        results: list[Result] = []
        while rest := tweets[len(results) :]:  # one batch after the other, so that requests take turns
            since = time.perf_counter()
            await self._turns.idle()
            results += await self._run(Call(rest[: self._size], since))
        return results

    @serve.batch(max_batch_size=Batching().size, batch_wait_timeout_s=0, batch_size_fn=count_tweets)  # type: ignore[untyped-decorator]
    async def _run(self, calls: list[Call]) -> list[list[Result]]:
        start = time.perf_counter()
        for call in calls:
            self._metrics.stage(self._name, "queue", start - call.since)
        tweets = [tweet for call in calls for tweet in call.tweets]
        cache = self._pipeline.cache
        hits, misses = cache.hits, cache.misses
        rest = iter(await self._turns.run(self._pipeline.run, tweets))
        self._metrics.batch(self._name, len(tweets), cache.hits - hits, cache.misses - misses)
        self._metrics.stage(self._name, "inference", time.perf_counter() - start)
        return [[next(rest) for _ in call.tweets] for call in calls]
