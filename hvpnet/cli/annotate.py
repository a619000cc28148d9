"""Extract from every tweet of a file, on this machine or a Ray cluster. Interrupted, it goes on where it was."""

from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.bulk_options import BulkOptions, run_job
from hvpnet.cli.options import WindowOptions, argument, select


@dataclass(frozen=True, kw_only=True)
class Options(BulkOptions, WindowOptions):
    """What `hvpnet annotate` was asked to do."""

    bundle: Path = argument()


def run(options: Options) -> int:
    """Annotate."""
    from hvpnet_runtime.bulk import Job

    return run_job(select(Job, options), options)
