"""What a bulk run is asked to do, and what it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hvpnet_runtime.preprocessing.pictures import Jpeg, OnBadImage
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
        on_bad_image: as in `Pipeline.load`.
        jpeg: as in `Pipeline.load`.
        objects: as in `Pipeline.load`.
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
