"""Results as JSON lines or Parquet: one part at a time, and the parts as one file."""

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from hvpnet_runtime.bulk.source import JSON_LINES, PARQUET
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import json_line
from hvpnet_runtime.triples.graph import GraphFormat, graph_writer

_GROUP_ROWS = 65_536  # small row groups make a Parquet file slow to read
_GROUP_BYTES = 128 * 2**20  # in memory; the triples of a post may take 100 KB
_ENCODED_ROWS = 1024  # of a part, which are Python objects at the same time


AnswerKind: TypeAlias = Task | Literal["triples"]
"""What is extracted, which decides on columns."""


def answers_for(output: Path, task: AnswerKind, id_type: pa.DataType, *, with_objects: bool = False) -> "Answers":
    """The format that the name's ending asks for; with a column of the objects that were found, or without.

    Raises:
        InputError: it is unknown.
    """
    if output.suffix in JSON_LINES:
        return JsonLinesAnswers()
    if output.suffix in PARQUET:
        return ParquetAnswers(task, id_type, with_objects=with_objects)
    raise InputError(f"{output} must end in {', '.join(JSON_LINES + PARQUET)}, which says how to write it")


class JsonLinesAnswers:
    """Answers as JSON lines, the same as those of `hvpnet predict`; and what was rejected.

    Attributes:
        with_rows: whether rows are to have the number of their row in the input, as `row`.
        part_suffix: of the files of parts; None for that of the output.
    """

    with_rows = False
    part_suffix: str | None = None

    def encode(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        """A file of these rows, which are JSON types."""
        file = BytesIO()
        file.writelines(f"{json_line(row)}\n".encode() for row in rows)
        return file.getvalue()

    def count(self, file: BinaryIO) -> int:
        """How many rows a file holds."""
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))

    def join(self, contents: Iterable[bytes], out: Path) -> int:
        """Write all rows of several files, in order, as one file; how many rows stand there then."""
        with out.open("wb") as joined:
            joined.writelines(contents)
        with out.open("rb") as joined_rows:
            return self.count(joined_rows)


class ParquetAnswers:
    """Answers as Parquet; see `JsonLinesAnswers`. Columns are named as the keys of JSON lines.

    Args:
        task: which columns there are.
        id_type: of the column `id`; ids that are not of it, from JSON lines, become their JSON text.
        with_objects: whether there is a column of the objects that were found.
    """

    with_rows = False
    part_suffix: str | None = None

    def __init__(self, task: AnswerKind, id_type: pa.DataType, *, with_objects: bool = False) -> None:
        self._schema = _schema(task, id_type)
        if with_objects:
            self._schema = self._schema.append(pa.field("objects", pa.list_(_OBJECT)))
        self._id_is_text = pa.types.is_string(id_type)

    def encode(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        """See `JsonLinesAnswers`."""
        rows = map(_without_maps, rows)
        if self._id_is_text:
            rows = ({**row, "id": _id_text(row["id"])} for row in rows)
        file, rest = BytesIO(), iter(rows)
        with pq.ParquetWriter(file, self._schema) as writer:
            while some := list(islice(rest, _ENCODED_ROWS)):
                writer.write_table(pa.Table.from_pylist(some, self._schema))
        return file.getvalue()

    def count(self, file: BinaryIO) -> int:
        """See `JsonLinesAnswers`."""
        return int(pq.read_metadata(file).num_rows)

    def join(self, contents: Iterable[bytes], out: Path) -> int:
        """See `JsonLinesAnswers`."""
        waiting: list[pa.Table] = []
        with pq.ParquetWriter(out, self._schema) as writer:
            for content in contents:
                waiting.append(pq.read_table(BytesIO(content)))
                if sum(map(len, waiting)) >= _GROUP_ROWS or sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        with out.open("rb") as joined:
            return self.count(joined)


_OBJECT = pa.struct([("box", pa.list_(pa.int32(), 4)), ("query", pa.string()), ("score", pa.float64())])


class GraphAnswers(JsonLinesAnswers):
    """Triples of all posts as one graph. Parts are JSON lines.

    Args:
        form: how the graph is written.
    """

    with_rows = True  # it tells posts apart
    part_suffix = ".jsonl"

    def __init__(self, form: GraphFormat) -> None:
        self._form = form

    def join(self, contents: Iterable[bytes], out: Path) -> int:
        """Write the graph."""
        rows = (json.loads(line) for content in contents for line in content.splitlines())
        return graph_writer(self._form)(rows, out)


Answers: TypeAlias = JsonLinesAnswers | ParquetAnswers
"""Formats of results."""


def _schema(task: AnswerKind, id_type: pa.DataType) -> pa.Schema:
    cut_words = ("cut_words", pa.int32())
    offsets = [("start", pa.int32()), ("end", pa.int32())]
    if task == "re":
        mention = pa.struct([("text", pa.string()), *offsets])
        relation = [("relation", pa.string()), ("score", pa.float64()), ("head", mention), ("tail", mention)]
        return pa.schema([("id", id_type), *relation, cut_words])
    places = [*offsets, ("first_word", pa.int32()), ("last_word", pa.int32())]
    entity = pa.struct([("text", pa.string()), ("type", pa.string()), *places, ("score", pa.float64())])
    if task == "triples":
        probabilities = pa.map_(pa.string(), pa.float64())
        scored = [("score", pa.float64()), ("probabilities", probabilities)]
        triple = pa.struct([("head", entity), ("relation", pa.string()), ("tail", entity), *scored])
        found = [("entities", pa.list_(entity)), ("triples", pa.list_(triple))]
        return pa.schema([("id", id_type), *found, cut_words, ("cut_pairs", pa.int64())])
    return pa.schema([("id", id_type), ("entities", pa.list_(entity)), ("tags", pa.list_(pa.string())), cut_words])


def _without_maps(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with lists of pairs for what are columns of maps."""
    if "triples" not in row:
        return row
    triples = [{**triple, "probabilities": [*triple["probabilities"].items()]} for triple in row["triples"]]
    return {**row, "triples": triples}


def _id_text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
