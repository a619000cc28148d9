"""What a bulk run is asked to do, and what it did."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from hvpnet_runtime.answering import Answering
from hvpnet_runtime.bulk.answers import Answers, GraphAnswers, answers_for
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.bundle import sha256 as file_digest
from hvpnet_runtime.pipeline import Pipeline, finds_objects
from hvpnet_runtime.preprocessing.pictures import Jpeg, OnBadImage
from hvpnet_runtime.triples import TriplePipeline
from hvpnet_runtime.triples.graph import GraphFormat, check_graph_name, graph_writer
from hvpnet_runtime.triples.pairs import MAX_PAIRS
from hvpnet_runtime.triples.pipeline import check_bundles
from hvpnet_runtime.types import ObjectSource


@dataclass(frozen=True)
class Job:
    """Everything that decides what is written, so that a resumed run can be held to it.

    Attributes:
        bundle: the bundle's folder.
        input: a file of JSON lines (.jsonl, .ndjson) or Parquet (.parquet), a tweet a row. Relative picture paths count
            from its folder.
        output: the file to write, .jsonl, .ndjson or .parquet; a row for every tweet that could be processed, in order.
        backend: `auto` or a name of `hvpnet_runtime.backends.BACKENDS`.
        precision: of the graphs; see `Pipeline.load`.
        window: slide over long texts instead of cutting them.
        on_bad_image: see `OnBadImage`.
        jpeg: see `Jpeg`.
        objects: see `ObjectSource`.
        part_rows: rows that are finished, and kept, together; doubled while that makes more than 10,000 parts.
    """

    bundle: Path
    input: Path
    output: Path
    backend: str = "auto"
    precision: str | None = None
    window: bool = False
    on_bad_image: OnBadImage = "error"
    jpeg: Jpeg = "full"
    objects: ObjectSource | None = None
    part_rows: int = 1000

    @property
    def rejected(self) -> Path:
        """Where rows that cannot be processed go, as JSON lines."""
        return self.output.with_name(f"{self.output.name}.rejected.jsonl")

    def absolute(self) -> Self:
        """The same with absolute paths."""
        return replace(self, bundle=self.bundle.absolute(), input=self.input.absolute(), output=self.output.absolute())

    def check(self) -> Bundle:
        """The bundle whose objects answers list, once everything is found to be there and whole.

        Raises:
            BundleError: a bundle is damaged.
            InputError: bundles do not go together.
        """
        return Bundle.load(self.bundle)

    def digest(self) -> str:
        """Tells bundles apart: a manifest has the digests of all other files."""
        return file_digest(self.bundle / "manifest.json")

    def answers(self, bundle: Bundle, id_type: pa.DataType) -> Answers:
        """How answers are written.

        Raises:
            InputError: the output's ending says nothing about it.
        """
        return answers_for(self.output, bundle.task, id_type, with_objects=finds_objects(bundle.manifest, self.objects))

    def load(self, threads: int | None, device: int | None) -> Answering[Any]:
        """What answers.

        Raises:
            HvpnetError: as `Pipeline.load`.
        """
        return self._load(self.bundle, window=self.window, threads=threads, device=device)

    def _load(self, bundle: Path, *, window: bool, threads: int | None, device: int | None) -> Pipeline:
        return Pipeline.load(
            bundle,
            self.backend,
            precision=self.precision,
            window=window,
            on_bad_image=self.on_bad_image,
            threads=threads,
            device=device,
            jpeg=self.jpeg,
            objects=self.objects,
        )


@dataclass(frozen=True, kw_only=True)
class TripleJob(Job):
    """A job of triples. `bundle` is that of entities, whose long texts are always read in windows.

    Attributes:
        relations: the folder of the bundle for relations.
        threshold: as of `TriplePipeline`.
        any_types: as of `TriplePipeline`.
        max_pairs: as of `TriplePipeline`.
        format: write one graph of all posts, as a folder for `neo4j`, and not an answer to each post.
    """

    relations: Path
    threshold: float = 0.0
    any_types: bool = False
    max_pairs: int = MAX_PAIRS
    format: GraphFormat | None = None

    def absolute(self) -> Self:
        """See `Job`."""
        return replace(super().absolute(), relations=self.relations.absolute())

    def check(self) -> Bundle:
        """See `Job`."""
        if self.format is not None:
            check_graph_name(self.output, self.format)
            graph_writer(self.format)  # where it is not installed, nothing begins
        entities, relations = Bundle.load(self.bundle), Bundle.load(self.relations)
        check_bundles(entities, relations, any_types=self.any_types)
        return entities

    def digest(self) -> str:
        """See `Job`."""
        return sha256((super().digest() + file_digest(self.relations / "manifest.json")).encode()).hexdigest()

    def answers(self, bundle: Bundle, id_type: pa.DataType) -> Answers:
        """See `Job`."""
        if self.format is not None:
            return GraphAnswers(self.format)
        with_objects = finds_objects(bundle.manifest, self.objects)
        return answers_for(self.output, "triples", id_type, with_objects=with_objects)

    def load(self, threads: int | None, device: int | None) -> Answering[Any]:
        """See `Job`."""
        with ExitStack() as loaded:
            entities, relations = (
                loaded.enter_context(self._load(path, window=True, threads=threads, device=device))
                for path in (self.bundle, self.relations)
            )
            pipeline = TriplePipeline(
                entities, relations, threshold=self.threshold, any_types=self.any_types, max_pairs=self.max_pairs
            )
            loaded.pop_all()
            return pipeline


@dataclass(frozen=True)
class Report:
    """What became of the rows.

    Attributes:
        rows: rows of the input; always the sum of the two.
        annotated: rows of the output.
        rejected: rows of the side file, by the type of their error.
        resumed: rows that an earlier, interrupted run had finished.
        backends: what the rows of this run were run on.
    """

    rows: int
    annotated: int
    rejected: Mapping[str, int]
    resumed: int
    backends: tuple[str, ...]
