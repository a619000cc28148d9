"""Extract from every tweet of a file, on this machine or a Ray cluster. Interrupted, it goes on where it was."""

import sys
from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.options import PipelineOptions, WindowOptions, argument, option, select, show
from hvpnet.cli.own_lines import own_lines
from hvpnet_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options(WindowOptions, PipelineOptions):
    """What `hvpnet annotate` was asked to do.

    Raises:
        InputError: a number is below 1.
    """

    bundle: Path = argument()
    input: Path = argument("tweets, .jsonl or .parquet; picture paths count from its folder")
    output: Path = argument("answers, .jsonl or .parquet; rejected rows go to a file beside it")
    address: str | None = option("of a Ray cluster, such as 10.0.0.1:6379 (default: start Ray here)")
    actors: int | None = option("most copies of the bundle at work (default: what fits)")
    threads: int | None = option("CPUs of one copy (default: its GPU's share, or 4)")
    part_rows: int = option("rows kept together (default 1000, more of huge files)", default=1000)

    def __post_init__(self) -> None:
        for name in ("actors", "threads", "part_rows"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {number}")


def run(options: Options) -> int:
    """Annotate; exit code 1 if a row of the input was rejected."""
    from hvpnet_runtime.bulk import Job, Resources, annotate

    job = select(Job, options)
    with own_lines(everything=options.debug) as stderr:  # Ray has much to say, even of a run that goes well
        report = annotate(job, select(Resources, options), progress=stderr)
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
