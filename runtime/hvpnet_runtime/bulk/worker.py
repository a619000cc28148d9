"""What one actor does: it loads the bundle once, and then a part at a time from the input's bytes to answers' bytes."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any

from hvpnet_runtime.bulk.answers import JsonLinesAnswers, answers_for
from hvpnet_runtime.bulk.job import Job
from hvpnet_runtime.bulk.source import Part, open_source
from hvpnet_runtime.bundle import sha256
from hvpnet_runtime.errors import BulkError, BundleError, HvpnetError, one_line
from hvpnet_runtime.jsonl import LineRow
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.stream import Row
from hvpnet_runtime.types import Rejection

MOST_TRIES = 3
"""How often a part may end its actor before the run stops: a lost node is bad luck, three are the part's doing."""

MOST_LINE = 10_000
"""Characters of a line that stands beside its rejection; a longer one holds a picture, or is none of tweets."""


@dataclass(frozen=True)
class Done:
    """A finished part, as its files' bytes."""

    number: int
    answers: bytes
    rejected: bytes
    rejections: int
    backend: str


@dataclass(frozen=True)
class Failed:
    """A part that cannot be finished, for a reason that is not its rows'.

    An exception that is raised would reach the driver wrapped by Ray, or be tried again without end.
    """

    error: HvpnetError
    trace: str


class Annotator:
    """A callable class for Ray Data: a part as a row, to `Done` or `Failed` as a row.

    Args:
        job: what to do; its paths are read on this node.
        digest: `manifest_digest` of the bundle.
        threads: CPUs to use.
        begin: counts how often a part was begun anywhere, this time included.
    """

    def __init__(self, job: Job, digest: str, threads: int, begin: Callable[[int], int]) -> None:
        self._job, self._digest, self._begin = job, digest, begin
        self._threads = threads

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Annotate one part."""
        part = Part(**row)
        try:
            outcome: Done | Failed = self._annotate(part)
        except HvpnetError as error:
            outcome = Failed(error, traceback.format_exc())
        except Exception as error:  # whatever it is, it must stop the run with its own words
            message = f"{type(error).__name__} in part {part.number}: {one_line(error)}"
            outcome = Failed(BulkError(message), traceback.format_exc())
        return {"outcome": outcome}

    def _annotate(self, part: Part) -> Done:
        if self._begin(part.number) > MOST_TRIES:
            raise BulkError(
                f"the part at row {part.first} ended its process {MOST_TRIES} times, for want of memory or by a crash "
                "of the backend: Ray's logs say which"
            )
        pipeline = self._pipeline
        # Which pictures share a run of the vision graph must not depend on the parts this actor happened to get before,
        # or the last digits of a score would.
        pipeline.cache.clear()
        source = open_source(self._job.input)
        rows, copies = tee(source.read(part))
        results: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        for row, outcome in zip(copies, pipeline.stream_rows(rows), strict=True):
            if isinstance(outcome, Rejection):
                rejected.append(outcome.to_dict() | _line(row))
            else:
                results.append(outcome.to_dict())
        if len(results) + len(rejected) != part.rows:
            raise BulkError(f"{self._job.input} has changed since the run began: remove the work folder to begin anew")
        answers = answers_for(self._job.output, pipeline.bundle.task, source.id_type)
        lines = JsonLinesAnswers().encode(rejected)
        return Done(part.number, answers.encode(results), lines, len(rejected), pipeline.backend.name)

    @cached_property
    def _pipeline(self) -> Pipeline:
        job = self._job
        if manifest_digest(job.bundle) != self._digest:
            raise BundleError(f"{job.bundle} differs between nodes: copy the same bundle to all")
        return Pipeline.load(
            job.bundle,
            job.backend,
            precision=job.precision,
            window=job.window,
            on_bad_image=job.on_bad_image,
            threads=self._threads,
            jpeg=job.jpeg,
        )


def _line(row: Row) -> dict[str, str]:
    """The line of a rejected row, as a key of its own."""
    return {"line": row.line} if isinstance(row, LineRow) and len(row.line) <= MOST_LINE else {}


def manifest_digest(bundle: Path) -> str:
    """Tells bundles apart: the manifest has the digests of all other files."""
    return sha256(bundle / "manifest.json")
