"""Extract from every tweet of a file, on this machine or a Ray cluster. Interrupted, it goes on where it was."""

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from hvpnet.cli.options import add_pipeline, add_window, select, show
from hvpnet_runtime.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("input", type=Path, help="tweets, .jsonl or .parquet; picture paths count from its folder")
    parser.add_argument("output", type=Path, help="answers, .jsonl or .parquet; rejected rows go to a file beside it")
    parser.add_argument("--address", help="of a Ray cluster, such as 10.0.0.1:6379 (default: start Ray here)")
    parser.add_argument("--actors", type=int, help="most copies of the bundle at work (default: what fits)")
    parser.add_argument("--threads", type=int, help="CPUs of one copy (default: its GPU's share, or 4)")
    parser.add_argument(
        "--part-rows", type=int, default=1000, help="rows kept together (default 1000, more of huge files)"
    )
    add_window(parser)
    add_pipeline(parser)


def run(options: argparse.Namespace) -> int:
    """Annotate; exit code 1 if a row of the input was rejected.

    Raises:
        InputError: a number is below 1.
    """
    for name in ("actors", "threads", "part_rows"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {number}")
    from hvpnet_runtime.bulk import Job, Resources, annotate

    job = select(Job, options)
    with redirect_stdout(sys.stderr):  # where Ray prints that a node is lost
        report = annotate(job, select(Resources, options), progress=True)
    show(
        {
            "output": str(options.output),
            "rows": report.rows,
            "annotated": report.annotated,
            "rejected": sum(report.rejected.values()),
            **report.rejected,
            "finished before": report.resumed,
            "backends": list(report.backends),
        },
        as_json=options.json,
    )
    if report.rejected:
        print(f"hvpnet: rejected rows are in {job.rejected}, each with its error", file=sys.stderr)
    return 1 if report.rejected else 0
