"""What does a part: it loads the bundle once, and then goes from the input's bytes to answers' bytes."""

import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import tee
from pathlib import Path
from typing import Any, TypeAlias

from hvpnet_runtime.bulk.answers import answers_for
from hvpnet_runtime.bulk.job import Job
from hvpnet_runtime.bulk.source import Part, open_source
from hvpnet_runtime.bundle import sha256
from hvpnet_runtime.errors import BulkError, BundleError, HvpnetError, one_line
from hvpnet_runtime.jsonl import LineRow, json_line
from hvpnet_runtime.pipeline import Pipeline, finds_objects
from hvpnet_runtime.stream import Row
from hvpnet_runtime.types import Rejection

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
    """A part that cannot be finished, for a reason that is not its rows'."""

    error: HvpnetError
    trace: str


Workers: TypeAlias = Callable[[Job, str, Sequence[Part]], Generator[Done]]
"""Where a bulk run runs: what annotates the parts of a job, whose bundle has this `manifest_digest`.

Finished parts come in any order, and answers do not depend on where they were made. It raises HvpnetError: what an
`Annotator` raised, or BulkError where it cannot begin or go on.
"""


class Annotator:
    """Annotates parts, one after the other. What it holds before the first can be pickled.

    Args:
        job: what to do; its paths are read where this runs.
        digest: `manifest_digest` of the bundle.
        threads: CPUs to use; by default all.
        device: number of the GPU to use; by default the first that the process sees.
    """

    def __init__(self, job: Job, digest: str, threads: int | None, device: int | None = None) -> None:
        self._job, self._digest, self._threads, self._device = job, digest, threads, device

    def __call__(self, part: Part) -> Done:
        """Annotate one part.

        Raises:
            HvpnetError: the bundle, the input or the backend is at fault.
            BulkError: whatever else went wrong.
        """
        try:
            return self._annotate(part)
        except HvpnetError:
            raise
        except Exception as error:  # whatever it is, it must stop the run with its own words
            raise BulkError(f"{type(error).__name__} in part {part.number}: {one_line(error)}") from error

    def close(self) -> None:
        """Free the pipeline."""
        if "_pipeline" in self.__dict__:
            self._pipeline.close()

    def _annotate(self, part: Part) -> Done:
        pipeline = self._pipeline
        # Which pictures share a run of the vision graph must not depend on the parts that came before here, or the last
        # digits of a score would. So it is with the grounder, whose runs depend on timing unless a run is one picture.
        pipeline.cache.clear()
        if pipeline.finder is not None:
            pipeline.finder.forget()
            pipeline.finder.batch = 1
        source = open_source(self._job.input)
        finds = finds_objects(pipeline.bundle.manifest, self._job.objects)
        answers = answers_for(self._job.output, pipeline.bundle.task, source.id_type, with_objects=finds)
        rejected, found = BytesIO(), Counter[type]()

        def results() -> Iterator[dict[str, Any]]:
            rows, copies = tee(source.read(part))
            for row, outcome in zip(copies, pipeline.stream_rows(rows), strict=True):
                found[type(outcome)] += 1
                if isinstance(outcome, Rejection):
                    rejected.write(f"{json_line(outcome.to_dict() | _line(row))}\n".encode())
                else:
                    yield outcome.to_dict()

        content = answers.encode(results())
        if found.total() != part.rows:
            raise BulkError(f"{self._job.input} has changed since the run began: remove the work folder to begin anew")
        return Done(part.number, content, rejected.getvalue(), found[Rejection], pipeline.backend.name)

    @cached_property
    def _pipeline(self) -> Pipeline:
        job = self._job
        if manifest_digest(job.bundle) != self._digest:
            raise BundleError(
                f"{job.bundle} has changed since the run began, or differs between nodes: copy the same bundle to all"
            )
        return Pipeline.load(
            job.bundle,
            job.backend,
            precision=job.precision,
            window=job.window,
            on_bad_image=job.on_bad_image,
            threads=self._threads,
            device=self._device,
            jpeg=job.jpeg,
            objects=job.objects,
        )


def _line(row: Row) -> dict[str, str]:
    """The line of a rejected row, as a key of its own."""
    return {"line": row.line} if isinstance(row, LineRow) and len(row.line) <= MOST_LINE else {}


def manifest_digest(bundle: Path) -> str:
    """Tells bundles apart: the manifest has the digests of all other files."""
    return sha256(bundle / "manifest.json")


def outcome_of(annotate: Callable[[Part], Done], part: Part) -> Done | Failed:
    """What became of a part, for another process, which an exception would not reach whole."""
    try:
        return annotate(part)
    except HvpnetError as error:
        return Failed(error, traceback.format_exc())
