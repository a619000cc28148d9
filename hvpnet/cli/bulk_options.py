"""Options of the verbs that go through a file of any size, and how such a run is done."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvpnet.cli.json_lines import STANDARD_INPUT
from hvpnet.cli.options import PipelineOptions, argument, option, select, show
from hvpnet.cli.own_lines import own_lines
from hvpnet_runtime.errors import InputError

if TYPE_CHECKING:
    from hvpnet_runtime.bulk import Job
    from hvpnet_runtime.bulk.worker import Workers


@dataclass(frozen=True, kw_only=True)
class BulkOptions(PipelineOptions):
    """Where a run reads and writes, and what it runs on.

    Raises:
        InputError: a number is below 1, or one GPU is chosen for several.
    """

    input: Path = argument("tweets, .jsonl or .parquet; picture paths count from its folder")
    output: Path = argument("answers, .jsonl or .parquet; rejected rows go to a file beside it")
    ray: bool = option("run on Ray, started here, instead of in this process")
    address: str | None = option("run on the Ray cluster there, such as 10.0.0.1:6379")
    copies: int | None = option(
        "most copies of the bundle at work (default: one for each GPU, or 1; on Ray, what fits)"
    )
    threads: int | None = option("CPUs of one copy (default: its share of all; on Ray, its GPU's share, or 4)")
    part_rows: int = option("rows kept together (default 1000, more of huge files)", default=1000)

    def __post_init__(self) -> None:
        if self.input == STANDARD_INPUT:
            raise InputError(
                "a run that can go on where it was needs a file, not standard input: name one; of entities or relations"
                " alone, hvpnet predict BUNDLE --input - does without"
            )
        for name in ("copies", "threads", "part_rows"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {number}")
        if self.device is not None and (self.ray or self.address is not None):
            raise InputError("--device belongs to a run without Ray, which gives each copy its GPU")
        if self.device is not None and (self.copies or 1) > 1:
            raise InputError(f"--device {self.device} is one GPU, which has one copy of the bundle, not {self.copies}")


def run_job(job: "Job", options: BulkOptions) -> int:
    """Do a bulk run and show what became of the rows; exit code 1 if a row of the input was rejected."""
    from hvpnet_runtime.bulk import annotate

    with own_lines(everything=options.debug) as stderr:  # others have much to say, even of a run that goes well
        report = annotate(job, _workers(options), progress=stderr)
    show(
        {
            "output": str(options.output),
            "rows": report.rows,
            "annotated": report.annotated,
            "rejected": sum(report.rejected.values()),
            **({"errors": dict(report.rejected)} if report.rejected else {}),
            "finished_before": report.resumed,
            "backends": list(report.backends),
        },
        as_json=options.json,
    )
    if report.rejected:
        print(f"hvpnet: rejected rows are in {job.rejected}, each with its error", file=sys.stderr)
    return 1 if report.rejected else 0


def _workers(options: BulkOptions) -> "Workers":
    if options.ray or options.address is not None:
        from hvpnet_runtime.bulk.on_ray import OnRay

        return select(OnRay, options)
    from hvpnet_runtime.bulk import Local

    return select(Local, options)
