"""Memory of a service that runs."""

import re
from contextlib import suppress
from pathlib import Path


def pss_mib(pid: int) -> float:
    """Memory of a process and all below it, what is shared counted in shares."""
    total, below = 0, [pid]
    while below:
        process = below.pop()
        with suppress(OSError):
            said = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", said, re.MULTILINE)[1])
            below += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    return round(total / 1024, 1)
