"""Ray on this machine alone, for the bulk run and for the service."""

import os


def prepare_local_ray() -> None:
    """Keep Ray's own ports on loopback, and let it report to nobody; before ray is imported, which is when it looks.

    Otherwise Ray takes the machine's outer address, even when told 127.0.0.1. What is set already stays.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
