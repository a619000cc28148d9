"""The service on this machine alone: Ray inside this command, until it is told to stop."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import one_line
from hvpnet_runtime.ray_processes import bind_replicas_to_loopback, prepare_local_ray, start_local_ray
from hvpnet_runtime.serving.address import listen, url_of
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.settings import Settings
from hvpnet_runtime.serving.stopping import finish

_SYSTEM = {
    "metrics_report_interval_ms": 2_000,  # instead of 10 s, which is made for clusters
    "worker_niceness": 0,  # instead of 15: a service must not wait for whatever else the machine computes
}
_CLOSE_SECONDS = 5  # for an ingress to say what it has in hand
_LOOK_SECONDS = 0.1
_LAST_ANSWERS_SECONDS = 0.5  # from the last ingress that has answered through Ray Serve's proxy to the client

_log = logging.getLogger(__name__)


@contextmanager
def ray_service(settings: Settings, host: str, port: int, *, log: bool = False) -> Iterator[str]:
    """Start Ray and the service in it, and stop both at the end, once the requests in hand are answered.

    Ray's own ports are on loopback, unless this process imported ray before; only the service listens at `host`.

    Args:
        settings: of the service.
        host: address to listen at.
        port: and the port.
        log: show the replicas' logs; otherwise they are only in Ray's log folder.

    Yields:
        The service's address, once it is ready.

    Raises:
        BundleError: a bundle is missing, damaged or edited.
        SettingsError: there is no token where one should be, or the address cannot be listened at.
        UnavailableError: Ray, its HTTP server or a replica does not start; the message says why.
    """
    if settings.token is not None:
        settings.token.read()
    for path in settings.bundles.values():
        bundle = Bundle.load(path)  # here, in one line, what would otherwise go wrong in some process of Ray
        if settings.objects == "found":
            _ = bundle.grounder  # or else it says what to do
    listen(host, port).close()
    prepare_local_ray()
    import ray
    from ray import serve

    from hvpnet_runtime.serving.on_ray.app import build

    level = logging.INFO if log else logging.ERROR
    logging.getLogger("ray.serve").setLevel(level)
    with _named("Ray"):
        start_local_ray(
            log_to_driver=log,
            logging_level=level,
            runtime_env={"worker_process_setup_hook": bind_replicas_to_loopback},
            _system_config=_SYSTEM,
        )
    try:
        replicas = {"log_level": level}
        with _named("Ray Serve"):
            serve.start(http_options={"host": host, "port": port}, logging_config=replicas)
        try:
            serve.run(build(settings), logging_config=replicas)
        except RuntimeError as error:
            raise UnavailableError(_reason(serve.status())) from error
        yield url_of(host, port)
        # Serve's own shutdown lets each deployment finish by itself: those that the ingress asks would be gone first.
        finish(_close, settings.stop_seconds, _LOOK_SECONDS)
        time.sleep(_LAST_ANSWERS_SECONDS)
    finally:
        ray.shutdown()  # without serve.shutdown(), which would wait for requests after stop_seconds or an interrupt


def _close() -> int:
    """Close every ingress; how many requests they have in hand still. An ingress that died has nothing in hand.

    Once Ray's process of this machine, the raylet, is dead, some calls of Ray never return: then nothing is in hand.
    """
    from ray import serve

    found: list[Any] = []

    def close() -> None:
        try:
            found.extend(serve.get_app_handle("default").broadcast("close").results(return_exceptions=True))
        except Exception:  # of Ray that died, or that a second signal took away meanwhile
            _log.debug("nobody said what is in hand", exc_info=True)

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)
    return sum(each for each in found if isinstance(each, int))


@contextmanager
def _named(part: str) -> Iterator[None]:
    """A failure to start it, in one line."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError, RayServeException) as error:
        raise UnavailableError(f"{part} does not start: {one_line(error)}") from error


def _reason(status: Any) -> str:  # noqa: ANN401  Ray's ServeStatus
    """What the first deployment that failed says, without its traceback."""
    for application in status.applications.values():
        for name, deployment in application.deployments.items():
            if deployment.status == "DEPLOY_FAILED":
                return f"{name} does not start: {deployment.message.strip().splitlines()[-1]}"
    return "the service does not start; --debug shows the logs"
