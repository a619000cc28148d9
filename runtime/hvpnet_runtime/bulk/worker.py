"""What one actor does: it loads the bundle once, and then a part at a time from the input's bytes to answers' bytes."""

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from hvpnet_runtime.bulk.answers import answers_for, encode_lines
from hvpnet_runtime.bulk.job import Job
from hvpnet_runtime.bulk.source import Part, Row, open_source
from hvpnet_runtime.bundle import sha256
from hvpnet_runtime.errors import BulkError, BundleError
from hvpnet_runtime.jsonl import tweet_from_dict
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.types import Result

BATCH_SIZE = 32
"""Rows of one run of the engines."""

MOST_TRIES = 3
"""How often a part may end its actor before the run stops: a lost node is bad luck, three are the part's doing."""

_AHEAD = 2 * BATCH_SIZE  # rows prepared while the engines run

In = TypeVar("In")
Out = TypeVar("Out")
Rejected = Mapping[str, Any]


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

    An exception would reach the driver wrapped by Ray, or be tried again without end.
    """

    number: int
    error: str
    message: str
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
        self._preparing = ThreadPoolExecutor(threads)
        self._pipeline: Pipeline | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Annotate one part."""
        part = Part(**row)
        try:
            outcome: Done | Failed = self._annotate(part)
        except Exception as error:  # whatever it is, it must stop the run with its own words
            message = " ".join(str(error).split())
            outcome = Failed(part.number, type(error).__name__, message, traceback.format_exc())
        return {"outcome": outcome}

    def _annotate(self, part: Part) -> Done:
        if self._begin(part.number) > MOST_TRIES:
            raise BulkError(
                f"the part at row {part.first} ended its process {MOST_TRIES} times, for want of memory or by a crash "
                "of the engine: Ray's logs say which"
            )
        pipeline = self._load()
        # Which pictures share a run of the vision graph must not depend on the parts this actor happened to get before,
        # or the last digits of a score would.
        pipeline.cache.clear()
        source = open_source(self._job.input)
        prepare = partial(_prepare, pipeline, self._job.input.parent)
        outcomes = _in_order(self._preparing, prepare, source.read(part))
        results: list[Result] = []
        rejected: list[Rejected] = []
        while chunk := list(islice(outcomes, BATCH_SIZE)):
            results += pipeline.run([outcome for outcome in chunk if isinstance(outcome, Prepared)])
            rejected += [outcome for outcome in chunk if not isinstance(outcome, Prepared)]
        if len(results) + len(rejected) != part.rows:
            raise BulkError(f"{self._job.input} has changed since the run began: remove the work folder to begin anew")
        answers = answers_for(self._job.output, pipeline.bundle.task, source.id_type)
        name = pipeline.backend.name
        return Done(part.number, answers.encode(results), encode_lines(rejected), len(rejected), name)

    def _load(self) -> Pipeline:
        if self._pipeline is None:
            job = self._job
            if manifest_digest(job.bundle) != self._digest:
                raise BundleError(f"{job.bundle} differs between nodes: copy the same bundle to all")
            self._pipeline = Pipeline.load(
                job.bundle,
                job.backend,
                precision=job.precision,
                window=job.window,
                on_bad_image=job.on_bad_image,
                threads=self._threads,
            )
        return self._pipeline


def manifest_digest(bundle: Path) -> str:
    """Tells bundles apart: the manifest has the digests of all other files."""
    return sha256(bundle / "manifest.json")


def _prepare(pipeline: Pipeline, folder: Path, row: Row) -> Prepared | Rejected:
    """A row that cannot be prepared must neither stop the run nor vanish, whatever is wrong with it."""
    values: Mapping[str, Any] = {}
    try:
        values = row.values()
        return pipeline.prepare(tweet_from_dict(values, folder))
    except MemoryError:
        raise  # says nothing about the row
    except Exception as error:
        problem = {"type": type(error).__name__, "message": str(error)}
        line = {"line": row.raw} if isinstance(row.raw, str) else {}
        return {"row": row.number, "id": values.get("id"), "error": problem, **line}


def _in_order(pool: ThreadPoolExecutor, work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """Like `map`, a few items ahead of who asks."""
    waiting: deque[Future[Out]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
