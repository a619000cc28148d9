"""The parent's side of `hvpnet.bench.worker`."""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Timer
from types import TracebackType
from typing import Any, Self, cast

from hvpnet.bench.variants import Variant
from hvpnet.bench.worker import Setup
from hvpnet.bench.workload import Case
from hvpnet.errors import HvpnetError

_PATIENCE = 600.0  # seconds that one answer may take; the first of torch.compile takes longest


class WorkerError(HvpnetError):
    """A variant does not run here, or no longer does.

    Attributes:
        variant: which.
        reason: in one line.
    """

    def __init__(self, variant: Variant, reason: str) -> None:
        super().__init__(f"{variant.name}: {reason}")
        self.variant, self.reason = variant, reason


@dataclass(frozen=True)
class Start:
    """What a fresh process takes until it has answered one tweet; the files it reads are in the system's cache.

    Attributes:
        imports: seconds.
        load: seconds, the bundle's digests or the checkpoint's tensors checked.
        first_answer: seconds.
        peak_bytes: most memory resident so far; None where the system does not say.
    """

    imports: float
    load: float
    first_answer: float
    peak_bytes: int | None

    @property
    def ready(self) -> float:
        """Seconds until it could answer."""
        return self.imports + self.load


class Worker:
    """A running process; use it as a context.

    Attributes:
        start: how long it took to get ready.
        peak_bytes: its peak memory so far; None where the system does not say.

    Args:
        variant: what it runs.
        setup: for that variant.

    Raises:
        WorkerError: the variant does not run here.
    """

    def __init__(self, variant: Variant, setup: Setup) -> None:
        self._variant = variant
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed with us
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "hvpnet.bench.worker", json.dumps(asdict(setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
        )
        self.peak_bytes: int | None = None
        try:
            start = self._read()["start"]
        except BaseException:
            self.close()
            raise
        self.start = Start(start["import"], start["load"], start["first"], self.peak_bytes)

    def measure(self, case: Case, number: int) -> dict[str, float]:
        """Seconds by stage of one answer; `number` as in `Workload.tweets`.

        Raises:
            WorkerError: it failed, and answers no more.
        """
        with suppress(BrokenPipeError):  # its process is gone, which the answer will say
            print(json.dumps({"case": asdict(case), "number": number}), file=self._process.stdin, flush=True)
        return cast("dict[str, float]", self._read()["stages"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        start, timer = time.monotonic(), Timer(_PATIENCE, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline() if self._process.stdout else ""
        finally:
            timer.cancel()
        if not line:
            code, late = self._process.wait(), time.monotonic() - start >= _PATIENCE
            reason = f"no answer in {_PATIENCE:g} seconds" if late else f"its process ended with code {code}"
            raise WorkerError(self._variant, reason + self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(self._variant, answer["error"])
        self.peak_bytes = answer["peak_bytes"]
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f": {lines[-1]}" if lines else ""
