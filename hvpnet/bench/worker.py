"""A process with one candidate loaded, so that its threads, caches and peak memory are no other's.

It answers tweets when told to, and says how long that took. Requests and answers are JSON lines.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from hvpnet.bench.candidates import Candidate  # not the runtime, whose import would not be among those that are timed
from hvpnet.bench.stopwatch import Stopwatch


def serve(candidate: Candidate, bundle: Path, checkpoint: Path, requests: Iterable[str], answers: TextIO) -> None:
    """Load a candidate, then answer every request; an error is an answer too, and the last.

    A request has the fields of a case and a number, see `Workload.tweets`. The first answer has the seconds of
    `imports` and `load`, the others those of each stage.
    """
    say = partial(print, file=answers, flush=True)
    load: Callable[[], Any]
    try:
        start = time.perf_counter()
        if candidate.is_pytorch:
            from hvpnet.bench.eager import EagerPipeline

            load = partial(EagerPipeline.load, candidate, bundle, checkpoint)
        else:
            from hvpnet_runtime import Pipeline

            load = partial(Pipeline.load, bundle, candidate.backend, precision=candidate.precision)
        imported = time.perf_counter()
        stopwatch = Stopwatch(load())
        took = {"imports": imported - start, "load": time.perf_counter() - imported}
        from hvpnet.bench.workload import Case, Workload

        workload = Workload(bundle)
        say(json.dumps(took))
        for *case, number in map(json.loads, requests):
            say(json.dumps(stopwatch.measure(workload.tweets(Case(*case), number))))
    except Exception as error:
        from hvpnet.errors import HvpnetError

        line = (str(error).strip().splitlines() or ["no message"])[0]
        say(json.dumps({"error": line if isinstance(error, HvpnetError) else f"{type(error).__name__}: {line}"}))


if __name__ == "__main__":
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where what libraries print goes
    backend, precision, bundle, checkpoint = sys.argv[1:]
    serve(Candidate(backend, precision), Path(bundle), Path(checkpoint), sys.stdin, output)
