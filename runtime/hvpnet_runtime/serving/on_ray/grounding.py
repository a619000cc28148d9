"""The deployment that runs a bundle's grounder, and how the preparation asks it."""

import time
from typing import Any, NamedTuple

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.backends.base import HostBackend
from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.grounding.finder import Finding
from hvpnet_runtime.grounding.search import Answer, Search, Searcher
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.health import still_finds
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.deaths import PAUSES, death
from hvpnet_runtime.serving.on_ray.metrics import RayInstruments
from hvpnet_runtime.serving.on_ray.turns import Turns
from hvpnet_runtime.serving.settings import Settings


class Call(NamedTuple):
    """A search, and since when (`time.perf_counter`) it has been waiting for the grounder."""

    search: Search
    since: float


class Grounding:
    """A loaded grounder: it searches pictures of all requests, as many in one run as wait.

    Args:
        name: of the bundle.
        settings: of the service.

    Raises:
        BundleError: the bundle is missing, damaged or edited.
        BackendError: no backend runs here, or the one named does not, or its first run fails.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        bundle = Bundle.load(settings.bundles[name])
        self._backend = load_backend(bundle, settings.backend, settings.threads, settings.precision)
        searcher = Searcher(bundle, self._backend.load_grounder())
        if isinstance(self._backend, HostBackend):  # on a device, the grounder shares what the backend holds there
            self._backend.close()
        searcher.grounder.warm_up()  # before Ray Serve sends searches here
        self._name, self._searcher, self._metrics = name, searcher, Metrics(RayInstruments())
        self._turns = Turns(f"the grounder of {name}", lambda: still_finds(searcher), settings.limits.answer_seconds)

    def check_health(self) -> None:
        """Ray Serve calls this now and then, and replaces the replica if it raises.

        Raises:
            BackendError: the grounder has failed for good, or does not come back from a run.
        """
        self._turns.check()

    async def __call__(self, search: Search) -> Answer:
        """The answer to a search, in one run with those that wait.

        Raises:
            BackendError: as `Searcher`.
        """
        since = time.perf_counter()
        await self._turns.idle()
        return self._searcher.check(await self._run(Call(search, since)))

    @serve.batch(max_batch_size=MAX_GROUNDED, batch_wait_timeout_s=0)  # type: ignore[untyped-decorator]
    async def _run(self, calls: list[Call]) -> list[Answer]:
        start = time.perf_counter()
        for call in calls:
            self._metrics.stage(self._name, "ground_queue", start - call.since)
        answers = await self._turns.run(self._searcher.run, [call.search for call in calls])
        self._metrics.searched(self._name, len(calls), time.perf_counter() - start)
        return answers


class RemoteFinder(Finding):
    """Finds objects with a grounder in replicas of their own; see `Finding`.

    Args:
        bundle: a checked bundle with a grounder.
        grounding: the deployment `Grounding` of this bundle.

    Raises:
        BundleError, MissingExtraError: as `Finding`.
    """

    def __init__(self, bundle: Bundle, grounding: "DeploymentHandle[Any]") -> None:
        super().__init__(bundle)
        self._grounding = grounding

    def _answer(self, search: Search) -> Answer:
        """See `Finding`. The calling thread waits for the answer.

        Raises:
            BackendError: as `Searcher`.
            UnavailableError: replicas died under every attempt.
        """
        for pause in (0, *PAUSES):
            time.sleep(pause)
            try:
                answer: Answer = self._grounding.remote(search).result()
            except (RayError, RayServeException) as error:
                cause = death(error)
            else:
                return answer
        raise UnavailableError("the grounder's replicas died under every attempt; try again later") from cause
