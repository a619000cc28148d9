"""The parent's side of `hvpnet.bench.worker`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from select import select
from subprocess import PIPE, Popen
from tempfile import TemporaryFile
from typing import IO, Any, cast

from hvpnet.bench.candidates import Candidate
from hvpnet.bench.workload import Case
from hvpnet.errors import HvpnetError

PATIENCE = 600.0
"""Seconds that one answer may take."""


class WorkerError(HvpnetError):
    """A `candidate` does not run here, or no longer does, for a `reason` in one line."""

    def __init__(self, candidate: Candidate, reason: str) -> None:
        super().__init__(f"{candidate.name}: {reason}")
        self.candidate, self.reason = candidate, reason


@contextmanager
def start_worker(
    candidate: Candidate, bundle: Path, checkpoint: Path, case: Case, patience: float = PATIENCE
) -> Iterator["Worker"]:
    """A process that has answered once and ends with the context.

    Raises WorkerError if the candidate does not run, or takes more seconds than our patience lasts to load or answer.
    """
    command = [sys.executable, "-m", "hvpnet.bench.worker", *astuple(candidate), str(bundle), str(checkpoint)]
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        Popen(command, stdin=PIPE, stdout=PIPE, stderr=log, bufsize=0) as process,  # noqa: S603  our own module
    ):
        try:
            yield Worker(candidate, process, log, case, patience)
        finally:
            process.kill()


class Worker:
    """A running process, of `start_worker`.

    `start` has seconds of `imports`, `load` (with a check of the bundle's digests or the checkpoint's tensors) and
    `first_answer`, and `peak_bytes` after it. `peak_bytes` is the peak so far, None where the system does not say.
    """

    def __init__(
        self, candidate: Candidate, process: "Popen[bytes]", log: IO[str], case: Case, patience: float
    ) -> None:
        self._patience = patience
        self._candidate, self._process, self._log = candidate, process, log
        took, first_answer = self._read(), sum(self.measure(case, 0).values())
        self.start: dict[str, float | None] = {**took, "first_answer": first_answer, "peak_bytes": self.peak_bytes}

    def measure(self, case: Case, number: int) -> dict[str, float]:
        """Seconds by stage of one answer, see `Workload.tweets`; raises WorkerError if it fails, now and for good."""
        with suppress(BrokenPipeError):  # its process is gone, which the answer will say
            cast("IO[bytes]", self._process.stdin).write(json.dumps([*astuple(case), number]).encode() + b"\n")
        return self._read()

    def _read(self) -> dict[str, float]:
        stdout = cast("IO[bytes]", self._process.stdout)
        in_time, *_ = select([stdout], [], [], self._patience)
        if not in_time:
            self._process.kill()
        line = stdout.readline() if in_time else b""
        if not line:
            code = self._process.wait()
            reason = f"its process ended with code {code}" if in_time else f"no answer in {self._patience:g} seconds"
            self._log.seek(0)
            raise WorkerError(self._candidate, ": ".join([reason, *self._log.read().strip().splitlines()[-1:]]))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(self._candidate, answer["error"])
        self.peak_bytes = peak_bytes(self._process.pid)
        return answer


def peak_bytes(pid: int) -> int | None:
    """The most memory that a process has had resident so far; None where the system does not say.

    It is not `getrusage`'s: on Linux that counts the parent's memory from before its program was started.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None
