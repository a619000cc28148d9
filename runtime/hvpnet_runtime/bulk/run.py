"""The run: hold the work folder, do its unfinished parts, check that every row is there, join."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from hvpnet_runtime.bulk.job import Job, Report
from hvpnet_runtime.bulk.local import Local
from hvpnet_runtime.bulk.source import Part, Source, open_source
from hvpnet_runtime.bulk.work import WorkFolder
from hvpnet_runtime.bulk.worker import Workers
from hvpnet_runtime.errors import BulkError


def annotate(job: Job, workers: Workers = Local(), *, progress: TextIO | None = None) -> Report:  # noqa: B008  frozen
    """Extract from every tweet of a file.

    Answers stand in the order of the input. Rows that cannot be processed go to `job.rejected`, with their number,
    their error and, of JSON lines, the line. Finished parts stay in a folder beside the output until all are there, so
    that after any interruption the same call goes on where it stopped. Its output is the same to the last byte, if the
    machines are alike.

    Wherever the tweets are annotated, only this process writes.

    Args:
        job: what to do.
        workers: where; by default on this machine, see `Local`, and `on_ray.OnRay` for a cluster.
        progress: where to show rate and time left, such as `sys.stderr`.

    Raises:
        InputError: the input cannot be read at all, or a name's ending is unknown.
        BundleError: the bundle is damaged, or not the same on all nodes.
        BackendError: a backend does not load or fails, or its engine is stale.
        MissingExtraError: the backend's packages are not installed.
        ResumeError: an interrupted run of another bundle, input or options stands in the way.
        BulkError: the output exists, the input changed, a process or Ray ended or cannot begin, or rows were lost.
    """
    job = job.absolute()
    bundle, source = job.check(), open_source(job.input)
    answers = job.answers(bundle, source.id_type)
    with WorkFolder.hold(job.output, job.rejected, answers.part_suffix) as work:
        identity = _identity(job)
        work.begin(identity, lambda: _index(source, job.part_rows, progress))
        todo = work.unfinished()
        backends = _annotate(job, work, todo, workers, progress=progress) if todo else ()
        if _identity(job) != identity:
            raise BulkError(f"{job.input} or a bundle changed during the run: remove {work.path} to begin anew")
        annotated, rejected = work.join(answers, job.output, job.rejected)
        work.remove()
    rows = _rows(work.parts)
    return Report(rows, annotated, rejected, rows - _rows(todo), backends)


def _annotate(
    job: Job, work: WorkFolder, todo: Sequence[Part], workers: Workers, *, progress: TextIO | None
) -> tuple[str, ...]:
    total, rejections = _rows(work.parts), 0
    backends: set[str] = set()
    parts = {part.number: part for part in todo}
    with (
        closing(workers(job, job.digest(), todo)) as finished,
        tqdm(total=total, initial=total - _rows(todo), unit=" tweets", smoothing=0.05, **_shown(progress)) as bar,
    ):
        for done in finished:
            work.finish(parts[done.number], done.answers, done.rejected)
            rejections += done.rejections
            backends.update(done.backends)
            bar.set_postfix(rejected=rejections, refresh=False)
            bar.update(parts[done.number].rows)
    return tuple(sorted(backends))


def _index(source: Source, part_rows: int, progress: TextIO | None) -> list[Part]:
    with tqdm(total=source.size, desc="counting", unit_scale=True, leave=False, **_shown(progress)) as bar:
        return source.index(part_rows, bar.update)


def _shown(progress: TextIO | None) -> dict[str, Any]:
    return {"file": progress, "disable": progress is None}


def _identity(job: Job) -> dict[str, Any]:
    """What answers depend on. A digest of the input would take as long to read again as the input does."""
    facts = job.input.stat()
    settings = {name: value for name, value in asdict(job).items() if not isinstance(value, Path)}
    return settings | {
        "hvpnet": version("hvpnet"),
        "bundle": job.digest(),
        "input": [str(job.input), facts.st_size, facts.st_mtime_ns],
    }  # the output may be moved, with the work folder beside it


def _rows(parts: Sequence[Part]) -> int:
    return sum(part.rows for part in parts)
