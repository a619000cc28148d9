"""The Ray Serve application: an ingress, and for each bundle a preparation, an inference, and a grounder if it has one.

`build` makes it from `Settings`, for `hvpnet serve` on this machine and for `serve deploy` on a cluster alike.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import ray
from fastapi import FastAPI
from prometheus_client import generate_latest
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import read_manifest
from hvpnet_runtime.pipeline import finds_objects
from hvpnet_runtime.ray_processes import PICTURE_PROCESS
from hvpnet_runtime.serving.admission import Admission
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.errors import SettingsError, UnavailableError
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.on_ray.deaths import PAUSES, death
from hvpnet_runtime.serving.on_ray.grounding import Grounding
from hvpnet_runtime.serving.on_ray.inference import Inference
from hvpnet_runtime.serving.on_ray.metrics import NodeMetrics, RayInstruments
from hvpnet_runtime.serving.on_ray.posts import RayPosts
from hvpnet_runtime.serving.on_ray.preparation import RayPreparation
from hvpnet_runtime.serving.settings import Replicas, Settings
from hvpnet_runtime.types import Rejection, Result, TripleResult, Tweet

_HEALTH_SECONDS = 5  # between questions to a backend's replica; one that stands still is replaced after twice as many
_START_ATTEMPTS = 3  # a replica that cannot load its bundle will not at the twentieth attempt either, Ray's default


@serve.ingress()
class Ingress:
    """Takes the requests, and passes the tweets on to the deployments of their bundle.

    Args:
        settings: of the service.
        preparations: by bundle.
        inferences: by bundle.
        posts: of triples; None where not both kinds of bundle are served.

    Raises:
        SettingsError: the bearer token cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        preparations: Mapping[str, DeploymentHandle[Any]],
        inferences: Mapping[str, DeploymentHandle[Any]],
        posts: DeploymentHandle[Any] | None,
    ) -> None:
        self._settings, self._preparations, self._inferences = settings, preparations, inferences
        self._posts = posts
        self._token = settings.token.read() if settings.token else None
        self._admission = Admission(settings.limits)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes."""
        return create_api(self._settings, self, Metrics(RayInstruments()), admission=self._admission, token=self._token)

    async def close(self) -> int:
        """Refuse new requests; how many requests are in hand still."""
        return self._admission.close()

    async def extract(self, bundle: str, tweets: Sequence[Tweet]) -> Sequence[Result | Rejection]:
        """See `Extractor`. What the preparation returns goes to the inference's replica without passing through here.

        Raises:
            UnavailableError: replicas died under every attempt.
            BackendError: the backend failed.
        """

        def attempt() -> DeploymentResponse[Any]:
            return self._inferences[bundle].remote(self._preparations[bundle].remote(list(tweets)))

        answers: Sequence[Result | Rejection] = await _attempted(attempt)
        return answers

    async def relate(self, entities: str, relations: str, posts: Sequence[Tweet]) -> Sequence[TripleResult | Rejection]:
        """See `Extractor`. What lies between passes from replica to replica.

        Raises:
            UnknownBundleError: the two bundles do not go together.
            UnavailableError: replicas died under every attempt.
            BackendError: a backend failed.
        """
        making = self._posts
        if making is None:
            raise UnavailableError("this service was deployed without what makes triples; deploy it anew")

        def attempt() -> DeploymentResponse[Any]:
            prepared = making.prepare.remote(entities, relations, list(posts))
            found = self._inferences[entities].remote(prepared)
            asked = making.ask.remote(entities, relations, prepared, found)
            told = self._inferences[relations].remote(making.pairs.remote(asked))
            return making.settle.remote(entities, relations, asked, told)

        answers: Sequence[TripleResult | Rejection] = await _attempted(attempt)
        return answers

    async def missing(self) -> list[str]:
        """See `Extractor`: deployments without a running replica; or Serve's controller, which knows of them."""
        app = serve.get_replica_context().app_name
        try:
            status = await asyncio.to_thread(serve.status)
            deployments = status.applications[app].deployments
        except (RayError, RayServeException, KeyError):
            return ["controller"]
        return [name for name, deployment in deployments.items() if not deployment.replica_states.get("RUNNING")]

    async def metrics(self) -> bytes:
        """See `Extractor`.

        Raises:
            UnavailableError: no node's metrics can be read.
        """
        try:
            nodes = await asyncio.to_thread(ray.nodes)
        except RayError as error:
            raise UnavailableError(f"Ray does not say which nodes there are: {error}") from error
        alive = [node for node in nodes if node["Alive"]]
        urls = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in alive]
        return await asyncio.to_thread(generate_latest, NodeMetrics(urls))


async def _attempted(attempt: Callable[[], DeploymentResponse[Any]]) -> Any:  # noqa: ANN401  a deployment's answer
    """The answer of the first attempt that no replica died under.

    Raises:
        UnavailableError: there is none.
        HvpnetError: what a replica raised.
    """
    for pause in (0, *PAUSES):
        await asyncio.sleep(pause)
        try:
            return await attempt()
        except (RayError, RayServeException) as error:
            cause = death(error)
    raise UnavailableError("replicas died under every attempt; try again later") from cause


def build(args: Settings) -> serve.Application:
    """The application, for `serve.run` and as the `import_path` of a Serve config file.

    Raises:
        BundleError: a bundle's manifest cannot be read here, where it says whether there is a grounder to deploy.
        SettingsError: a GPU is chosen, which is for Ray to do.
    """
    if args.device is not None:
        raise SettingsError(f"device is {args.device}: on Ray, inference.gpus says how many GPUs each replica gets")
    manifests = {name: read_manifest(path) for name, path in args.bundles.items()}
    groundings = {
        name: _running(Grounding, "grounding", name, MAX_GROUNDED, args)
        for name, manifest in manifests.items()
        if finds_objects(manifest, args.objects)
    }
    preparations = {
        name: _preparing(RayPreparation, f"preparation-{name}", args).bind(name, groundings.get(name), args)
        for name in args.bundles
    }
    inferences = {
        name: _running(Inference, "inference", name, args.batching.size, args, user_config=args.batching.model_dump())
        for name in args.bundles
    }
    posts = None
    if {each.task for each in manifests.values()} == {"ner", "re"}:
        posts = _preparing(RayPosts, "triples", args).bind(groundings, args)
    queue = args.limits.queue
    # The ingress itself refuses what is too much, as a problem; Serve's own limits lie above, and only guard it.
    ingress = serve.deployment(
        Ingress,
        name="ingress",
        max_ongoing_requests=2 * queue,
        max_queued_requests=queue,
        backpressure_config={"status_code": 429, "retry_after_s": args.limits.retry_after_seconds},
        **_replicas(args.ingress, target=max(1, queue // 2), environment=PICTURE_PROCESS),
    )
    return ingress.bind(args, preparations, inferences, posts)


def _preparing(kind: type, name: str, settings: Settings) -> serve.Deployment:
    return serve.deployment(
        kind,
        name=name,
        max_ongoing_requests=4,
        **_replicas(settings.preparation, target=2, environment=PICTURE_PROCESS),
    )


def _running(
    kind: type, part: Literal["grounding", "inference"], bundle: str, size: int, settings: Settings, **options: object
) -> serve.Application:
    """What runs graphs of a bundle, in batches of this size."""
    deployment = serve.deployment(
        kind,
        name=f"{part}-{bundle}",
        max_ongoing_requests=2 * size,  # a batch that runs, and one that gathers
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=2 * _HEALTH_SECONDS,
        **_replicas(getattr(settings, part), target=size),
        **options,
    )
    return deployment.bind(bundle, settings)


def _replicas(replicas: Replicas, *, target: float, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Options of a deployment; `target` is the requests that one replica should have in hand."""
    actor: dict[str, Any] = {"num_cpus": replicas.cpus, "num_gpus": replicas.gpus}
    if environment:
        actor["runtime_env"] = {"env_vars": dict(environment)}
    options: dict[str, Any] = {
        "ray_actor_options": actor,
        "max_constructor_retry_count": _START_ATTEMPTS,
    }
    if replicas.least == replicas.most:
        return options | {"num_replicas": replicas.least}
    autoscaling = {
        "min_replicas": replicas.least,
        "max_replicas": replicas.most,
        "target_ongoing_requests": target,
        "upscale_delay_s": 5,
        "downscale_delay_s": 120,
    }
    return options | {"autoscaling_config": autoscaling}
