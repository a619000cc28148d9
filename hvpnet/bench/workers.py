"""The parent's side of `hvpnet.bench.worker`."""

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from select import select
from subprocess import PIPE
from typing import IO, Any, Self, cast

from hvpnet.bench.subjects import Variant
from hvpnet.bench.workload import Case
from hvpnet.errors import HvpnetError

_PATIENCE = 600.0  # seconds that one answer may take; the first of torch.compile takes longest


class WorkerError(HvpnetError):
    """A `variant` does not run here, or no longer does, for a `reason` in one line."""

    def __init__(self, variant: Variant, reason: str) -> None:
        super().__init__(f"{variant.name}: {reason}")
        self.variant, self.reason = variant, reason


class Worker:
    """A running process, to be used as a context; raises WorkerError if the variant does not run here.

    `start` has seconds of `imports`, `load` (with a check of the bundle's digests or the checkpoint's tensors) and
    `first_answer`, and `peak_bytes` after it. `peak_bytes` is the peak so far, None where the system does not say.
    """

    def __init__(self, variant: Variant, bundle: Path, checkpoint: Path, case: Case) -> None:
        self._variant = variant
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed with us
        command = [sys.executable, "-m", "hvpnet.bench.worker", variant.backend, variant.precision]
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [*command, str(bundle), str(checkpoint)], stdin=PIPE, stdout=PIPE, stderr=self._log, encoding="utf-8"
        )
        self._answers = cast("IO[str]", self._process.stdout)
        try:
            took, first_answer = self._read(), sum(self.measure(case, 0).values())
        except BaseException:
            self.__exit__()
            raise
        self.start = took | {"first_answer": first_answer, "peak_bytes": self.peak_bytes}

    def measure(self, case: Case, number: int) -> dict[str, float]:
        """Seconds by stage of one answer, see `Workload.tweets`; raises WorkerError if it fails, now and for good."""
        with suppress(BrokenPipeError):  # its process is gone, which the answer will say
            print(json.dumps({"case": vars(case), "number": number}), file=self._process.stdin, flush=True)
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        in_time, *_ = select([self._answers], [], [], _PATIENCE)
        if not in_time:
            self._process.kill()
        line = self._answers.readline() if in_time else ""
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            reason = f"its process ended with code {code}" if in_time else f"no answer in {_PATIENCE:g} seconds"
            raise WorkerError(self._variant, ": ".join([reason, *self._log.read().strip().splitlines()[-1:]]))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(self._variant, answer["error"])
        self.peak_bytes: int | None = answer.pop("peak_bytes")
        return answer
