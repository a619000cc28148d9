"""A process with one variant loaded, so that its threads, caches and peak memory are no other's.

It answers tweets when told to, and says how long that took. Requests and answers are JSON lines.
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from hvpnet.bench.subjects import Variant  # not the runtime, whose import would not be among those that are timed


def serve(variant: Variant, bundle: Path, checkpoint: Path, requests: Iterable[str], answers: TextIO) -> None:
    """Load a variant, then answer every request; an error is an answer too, and the last.

    A request is a `case` and a `number`, see `Workload.tweets`. The first answer has the seconds of `imports` and
    `load`, the others those of each stage, and all have `peak_bytes`, memory so far.
    """

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer | {"peak_bytes": peak_bytes()}), file=answers, flush=True)

    try:
        start = time.perf_counter()
        module = import_module("hvpnet.bench.eager" if variant.is_pytorch else "hvpnet.bench.runtime")
        imported = time.perf_counter()
        subject = module.load_subject(variant, bundle, checkpoint)
        took = {"imports": imported - start, "load": time.perf_counter() - imported}
        from hvpnet.bench.workload import Case, Workload

        workload = Workload(bundle)
        say(took)
        for request in map(json.loads, requests):
            say(subject.measure(workload.tweets(Case(**request["case"]), request["number"])))
    except Exception as error:
        from hvpnet.errors import HvpnetError

        line = (str(error).strip().splitlines() or ["no message"])[0]
        say({"error": line if isinstance(error, HvpnetError) else f"{type(error).__name__}: {line}"})


def peak_bytes() -> int | None:
    """The most memory that this process has had resident so far; None where the system does not say.

    It is not `getrusage`'s: on Linux that counts the parent's memory from before this program was started.
    """
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where what libraries print goes
    backend, precision, bundle, checkpoint = sys.argv[1:]
    serve(Variant(backend, precision), Path(bundle), Path(checkpoint), sys.stdin, output)
