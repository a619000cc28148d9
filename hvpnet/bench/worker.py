"""A process with one variant loaded and nothing else: it answers tweets when told to, and says how long that took.

A process each, so that threads, caches and peak memory of one engine are not another's. Requests and answers are JSON
lines.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # at run time an import of the runtime would not be among those that are timed
    from hvpnet.bench.stopwatch import Subject


@dataclass(frozen=True)
class Setup:
    """What a worker is to load.

    Attributes:
        engine: of the variant.
        precision: of the variant.
        bundle: its folder; for PyTorch's variants it has the tokeniser and says how pictures become pixels.
        checkpoint: what the bundle was exported from.
        case: of the first answer, as `Case.to_dict` gives it.
    """

    engine: str
    precision: str
    bundle: str
    checkpoint: str
    case: dict[str, Any]

    def load(self) -> "tuple[Subject, dict[str, float]]":
        """The subject, and the seconds that its imports and its loading took.

        Raises:
            Exception: it cannot run here.
        """
        start = time.perf_counter()
        if self.engine in ("eager", "torch.compile"):
            from hvpnet.bench.eager import load_subject

            imported = time.perf_counter()
            subject: Subject = load_subject(
                Path(self.bundle), Path(self.checkpoint), self.precision, compiled=self.engine == "torch.compile"
            )
        else:
            from hvpnet.bench.runtime import RuntimeSubject

            imported = time.perf_counter()
            subject = RuntimeSubject(self.bundle, self.engine, self.precision)
        return subject, {"import": imported - start, "load": time.perf_counter() - imported}


def serve(setup: Setup, requests: Iterable[str], answers: TextIO) -> None:
    """Loads a variant and answers one tweet, then every request; an error is an answer too, and the last.

    Args:
        setup: what to load.
        requests: each a `case` and a `number`; see `Workload.tweets`.
        answers: gets the `start`, seconds to `import`, to `load` and to the `first` answer; then for every request its
            `stages` in seconds. With all of them goes `peak_bytes`, memory so far.
    """

    def say(**values: object) -> None:
        print(json.dumps(values | {"peak_bytes": peak_bytes()}), file=answers, flush=True)

    try:
        _serve(setup, requests, say)
    except Exception as error:
        from hvpnet.errors import HvpnetError

        line = (str(error).strip().splitlines() or ["no message"])[0]
        say(error=line if isinstance(error, HvpnetError) else f"{type(error).__name__}: {line}")


def _serve(setup: Setup, requests: Iterable[str], say: Callable[..., None]) -> None:
    subject, start = setup.load()
    from tokenizers import Tokenizer

    from hvpnet.bench.workload import Case, Workload

    manifest = json.loads(Path(setup.bundle, "manifest.json").read_text("utf-8"))
    workload = Workload(Tokenizer.from_file(str(Path(setup.bundle, "tokenizer.json"))), manifest["task"])

    def answer(case: dict[str, Any], number: int) -> dict[str, float]:
        return subject.measure(workload.tweets(Case(**case), number))

    say(start=start | {"first": sum(answer(setup.case, 0).values())})
    for line in requests:
        say(stages=answer(**json.loads(line)))
    subject.close()


def peak_bytes() -> int | None:
    """The most memory that this process has had resident so far; None where the system does not say.

    Not `getrusage`: on Linux that counts the parent's memory from before this program was started.
    """
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(Setup(**json.loads(sys.argv[1])), sys.stdin, answers)


if __name__ == "__main__":
    main()
