"""Processes of Ray, for the service and for bulk runs: what they are told before they start."""

import os

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


def prepare_local_ray() -> None:
    """Keep Ray's own ports on loopback, and let it report to nobody; before ray is imported, which is when it looks.

    Otherwise Ray takes the machine's outer address, even when told 127.0.0.1. What is set already stays.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
