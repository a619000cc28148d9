"""Extract from every tweet of a file, on this machine or a Ray cluster. Interrupted, it goes on where it was."""

import argparse
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hvpnet.cli.options import add_backend, add_json, add_pictures, add_precision, show
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.preprocessing.prepare import OnBadImage

if TYPE_CHECKING:
    from hvpnet_runtime.bulk import Job, Report


@dataclass(frozen=True)
class Options:
    """What `hvpnet annotate` was asked to do."""

    bundle: Path
    input: Path
    output: Path
    address: str | None
    actors: int | None
    threads: int | None
    part_rows: int
    backend: str
    precision: str | None
    window: bool
    on_bad_image: OnBadImage
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line.

        Raises:
            InputError: a number is not positive.
        """
        for name in ("actors", "threads", "part_rows"):
            if (number := getattr(parsed, name)) is not None and number < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {number}")
        return cls(
            parsed.bundle,
            parsed.input,
            parsed.output,
            parsed.address,
            parsed.actors,
            parsed.threads,
            parsed.part_rows,
            parsed.backend,
            parsed.precision,
            parsed.window,
            parsed.on_bad_image,
            parsed.json,
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("input", type=Path, help="tweets, .jsonl or .parquet; picture paths count from its folder")
    parser.add_argument("output", type=Path, help="answers, .jsonl or .parquet; rejected rows go to a file beside it")
    parser.add_argument("--address", help="of a Ray cluster, such as 10.0.0.1:6379 (default: start Ray here)")
    parser.add_argument("--actors", type=int, help="most copies of the bundle at work (default: what fits)")
    parser.add_argument("--threads", type=int, help="CPUs of one copy (default: its GPU's share, or 4)")
    parser.add_argument(
        "--part-rows",
        type=int,
        default=1000,
        help="rows kept together (default 1000, more of huge files)",
    )
    parser.add_argument("--window", action="store_true", help="slide over long texts instead of cutting them")
    add_backend(parser)
    add_precision(parser)
    add_pictures(parser)
    add_json(parser)


def run(options: Options) -> int:
    """Annotate; exit code 1 if a row of the input was rejected."""
    from hvpnet_runtime.bulk import Job, Resources, annotate

    job = Job(
        options.bundle,
        options.input,
        options.output,
        options.backend,
        options.precision,
        options.window,
        options.on_bad_image,
        options.part_rows,
    )
    resources = Resources(options.address, options.actors, options.threads)
    with redirect_stdout(sys.stderr):  # where Ray prints that a node is lost
        report = annotate(job, resources, progress=True)
    show(_summary(job, report), as_json=options.json)
    if report.rejected:
        print(f"hvpnet: rejected rows are in {job.rejected}, each with its error", file=sys.stderr)
    return 1 if report.rejected else 0


def _summary(job: "Job", report: "Report") -> dict[str, object]:
    return {
        "output": str(job.output),
        "rows": report.rows,
        "annotated": report.annotated,
        "rejected": sum(report.rejected.values()),
        **report.rejected,
        "finished before": report.resumed,
        "backends": list(report.backends),
    }
