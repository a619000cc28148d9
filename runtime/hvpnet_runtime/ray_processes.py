"""Processes of Ray, for the service and for bulk runs: what they are told before they start."""

import logging
import os
import secrets
import sys
from typing import Any

from hvpnet_runtime.errors import one_line

PICTURE_PROCESS = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    "MALLOC_ARENA_MAX": "2",
}
"""Environment variables for such a process, read by glibc when it starts; other C libraries ignore them.

Left to itself, glibc hands the memory of one picture back and asks for it again for the next, which for a picture of
1200 x 900 takes longer than decoding it; and each of its arenas, of which every thread may get one, keeps up to 64 MiB
that somebody's largest pictures once needed. Two arenas that keep up to 32 MiB are faster, and bound what is kept.
"""


_log = logging.getLogger(__name__)


def start_local_ray(**options: Any) -> None:  # noqa: ANN401  Ray's own options
    """Start Ray in this process, after `prepare_local_ray`; a second time where it does not come up at once.

    Ray's first process, the one all others ask for their addresses, now and then never says which port it listens at;
    Ray waits 30 s for it and gives up. The next one does.

    Args:
        **options: of `ray.init`.

    Raises:
        OSError, RuntimeError, ValueError: Ray does not start, as `ray.init` raises them.
    """
    import ray

    try:
        ray.init("local", include_dashboard=False, **options)
    except RuntimeError as error:
        _log.warning("Ray did not start and is started once more: %s", one_line(error))
        ray.shutdown()
        ray.init("local", include_dashboard=False, **options)


def prepare_local_ray() -> None:
    """Keep Ray's own ports on loopback and behind a token of this run, and let it report to nobody.

    It has to come before ray is imported, which is when Ray looks for its address; otherwise that is the machine's
    outer one, even when told 127.0.0.1. Whatever the environment says of tokens is replaced: Ray's messages are
    unpickled, so that whoever may send them runs code, and a token that Ray made itself would stand in a file that all
    can read. Where this process has Ray already, that one stays as it is.
    """
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return  # another token would only end what runs
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")  # a process that imported ray before has read the environment already
    AuthenticationTokenLoader.instance().reset_cache()


def bind_replicas_to_loopback() -> None:
    """Runs first in every process of a local Ray Serve: replicas listen to each other on loopback, not everywhere."""
    from ray.serve._private import replica

    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _everywhere: bind(server, "127.0.0.1:0")
