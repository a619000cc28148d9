"""Serve bundles over HTTP on this machine. The same service on a cluster: see docs/deploy.md."""

import argparse
import sys
from pathlib import Path
from typing import Any

from hvpnet.cli.options import add_backend, progress
from hvpnet_runtime.errors import InputError

_PORTS = range(1, 65536)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "bundle", nargs="+", metavar="[NAME=]BUNDLE", help="requests name it by NAME, by default the folder's name"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000)
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token-env", metavar="VARIABLE", help="environment variable with the bearer token to ask for")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to ask for")
    parser.add_argument("--settings", type=Path, metavar="TOML", help="limits, batching and replicas")
    add_backend(parser)
    parser.set_defaults(backend=None)  # what is not given here stays as the settings have it


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted.

    Raises:
        InputError: two bundles have one name, or there is no such port.
    """
    bundles = _bundles(options.bundle)
    if options.port not in _PORTS:
        raise InputError(f"--port {options.port}: a port is a number from {_PORTS[0]} to {_PORTS[-1]}")
    from hvpnet_runtime.serving.local import local_service, stop_signals
    from hvpnet_runtime.serving.settings import Settings, read_settings

    values: dict[str, Any] = read_settings(options.settings) if options.settings else {}
    given = {"backend": options.backend, "precision": options.precision}
    values |= {"bundles": bundles} | {name: value for name, value in given.items() if value is not None}
    token = {"env": options.token_env, "file": options.token_file}
    if any(token.values()):
        values["token"] = token
    settings = Settings.parse(values)
    progress(f"starting {', '.join(settings.bundles)}")
    with local_service(settings, options.host, options.port, log=options.debug) as url:
        stop = stop_signals()  # before anybody knows that there is something to stop
        print(f"hvpnet: serving at {url}, described at {url}/docs", file=sys.stderr, flush=True)
        stop.get()
        progress("stopping")
    return 0


def _bundles(arguments: list[str]) -> dict[str, Path]:
    bundles: dict[str, Path] = {}
    for argument in arguments:
        name, separator, path = argument.partition("=")
        folder = Path(path if separator else argument).resolve()
        name = name if separator else folder.name
        if name in bundles:
            raise InputError(f"two bundles are named {name!r}: name them with NAME=FOLDER")
        bundles[name] = folder
    return bundles
