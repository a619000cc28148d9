"""Memory and CPU time of a service that runs: of its process, and all below it."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def below(pid: int) -> Iterator[Path]:
    """The process and all below it, as folders of /proc."""
    waiting = [pid]
    while waiting:
        process = Path("/proc", str(waiting.pop()))
        with suppress(OSError):
            waiting += map(int, (process / "task" / process.name / "children").read_text().split())
            yield process


def pss_mib(pid: int) -> float:
    """Memory, what is shared counted in shares."""
    total = 0
    for process in below(pid):
        with suppress(OSError):
            said = (process / "smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", said, re.MULTILINE)[1])
    return round(total / 1024, 1)


def cpu_seconds(pid: int) -> Counter[str]:
    """Seconds of CPU so far, by the processes' names."""
    found: Counter[str] = Counter()
    for process in below(pid):
        with suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_text().split("\0")[0]
            found[Path(command).name] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found
