"""Serve bundles over HTTP on this machine. The same service on a cluster: see docs/deploy.md."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from hvpnet.cli.options import (
    VerbOptions,
    argument,
    backend_option,
    device_option,
    jpeg_option,
    objects_option,
    option,
    precision_option,
    progress,
)
from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.preprocessing.pictures import Jpeg
from hvpnet_runtime.types import ObjectSource

if TYPE_CHECKING:
    from hvpnet_runtime.serving import Settings

_PORTS = range(1, 65536)


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """What `hvpnet serve` was asked to do.

    Raises:
        InputError: there is no such port, or an option belongs to the other form of the service.
    """

    bundle: list[str] = argument(
        "requests name it by NAME, by default the folder's name", nargs="+", metavar="[NAME=]BUNDLE"
    )
    host: str = option("address to listen at (default: this machine only)", default="127.0.0.1")
    port: int = option("to listen at (default 8000)", default=8000)
    token_env: str | None = option(
        "environment variable with the bearer token to ask for", one_of="token", metavar="VARIABLE"
    )
    token_file: Path | None = option("file with the bearer token to ask for", one_of="token", metavar="FILE")
    settings: Path | None = option("limits, batching and replicas", metavar="TOML")
    ray: bool = option("run on Ray Serve, with replicas in processes of their own, instead of in this process")
    access_log: bool = option("log a line for every request on standard error")
    backend: str | None = backend_option(default=None)  # what is not given stays as the settings have it
    precision: str | None = precision_option()
    device: int | None = device_option()
    jpeg: Jpeg | None = jpeg_option(default=None)
    objects: ObjectSource | None = objects_option()

    def __post_init__(self) -> None:
        if self.ray and self.access_log:
            raise InputError("--access-log belongs to the service in this process; with --ray, --debug shows Ray's own")
        if self.ray and self.device is not None:
            raise InputError("--device belongs to the service in this process; Ray gives replicas their GPUs")
        if self.port not in _PORTS:
            raise InputError(f"--port {self.port}: a port is a number from {_PORTS[0]} to {_PORTS[-1]}")


def run(options: Options) -> int:
    """Serve until interrupted.

    Raises:
        InputError: two bundles have one name.
        BackendError: a backend failed for good while it served.
        UnavailableError: the HTTP server ended.
    """
    settings, ends = _settings(options), SimpleQueue[int | Exception]()
    from hvpnet_runtime.serving.errors import StuckError
    from hvpnet_runtime.serving.server import end_at_signals, local_service

    progress(f"starting {', '.join(settings.bundles)}")
    if options.ray:
        from hvpnet_runtime.serving.on_ray.start import ray_service

        service = ray_service(settings, options.host, options.port, log=options.debug)
    else:
        if options.access_log:
            logging.getLogger("hvpnet.access").setLevel(logging.INFO)
        service = local_service(settings, options.host, options.port, ends, access_log=options.access_log)
    try:
        with service as url:
            end_at_signals(ends)  # before anybody knows that there is something to stop
            print(f"hvpnet: serving at {url}, described at {url}/docs", file=sys.stderr, flush=True)
            end = ends.get()
            progress("stopping")
    except StuckError as error:
        interrupted = isinstance(error.__context__, KeyboardInterrupt)
        print("hvpnet: interrupted" if interrupted else f"hvpnet: error: {error}", file=sys.stderr, flush=True)
        os._exit(130 if interrupted else 1)  # the interpreter would wait for the thread that is still at work
    if isinstance(end, Exception):
        raise end
    return 0


def _settings(options: Options) -> "Settings":
    bundles = _bundles(options.bundle)
    from hvpnet_runtime.serving.settings import Settings, read_settings

    values: dict[str, Any] = read_settings(options.settings) if options.settings else {}
    given = {name: getattr(options, name) for name in ("backend", "precision", "device", "jpeg", "objects")}
    values |= {"bundles": bundles} | {name: value for name, value in given.items() if value is not None}
    token = {"env": options.token_env, "file": options.token_file}
    if any(value is not None for value in token.values()):  # an empty one is refused, not ignored
        values["token"] = token
    return Settings.parse(values)


def _bundles(given: list[str]) -> dict[str, Path]:
    bundles: dict[str, Path] = {}
    for named in given:
        name, separator, path = named.partition("=")
        folder = Path(path if separator else named).resolve()
        name = name if separator else folder.name
        if name in bundles:
            raise InputError(f"two bundles are named {brief(name)}: name them with NAME=FOLDER")
        bundles[name] = folder
    return bundles
