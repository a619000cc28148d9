"""Tweets out of JSON lines or Parquet: cut once into parts of known size, each of which is read on its own."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, time
from itertools import accumulate, islice
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from hvpnet_runtime.errors import InputError, brief, one_line
from hvpnet_runtime.jsonl import KEYS, MOST_LEVELS, FileRow, line_rows, read_lines

JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet",)
MOST_PARTS = 10_000
"""A part is a file for a while, and a task of Ray's."""

_READ_ROWS = 64  # rows of Parquet decoded at once; they may hold pictures
_SHOWN = 100  # characters of what pyarrow says of a value, which it may quote whole

Tick = Callable[[int], object]


@dataclass(frozen=True)
class Part:
    """Consecutive rows.

    Attributes:
        number: from 0.
        first: number of the first row, from 1; in JSON lines, its line.
        rows: how many.
        start: where it begins: a byte of JSON lines, a row of Parquet from 0.
    """

    number: int
    first: int
    rows: int
    start: int


@dataclass(frozen=True)
class ParquetRow(FileRow):
    """A row of Parquet, as a batch of this row alone."""

    batch: pa.RecordBatch

    def values(self) -> dict[str, Any]:
        """See `FileRow`; the id is of JSON types."""
        try:
            (values,) = self.batch.to_pylist()
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8: {error}") from error
        except MemoryError:
            raise  # says nothing about the row
        except Exception as error:  # a date before year 1, a time zone that nobody knows
            what = f"{type(error).__name__}: {one_line(error)[:_SHOWN]}"
            raise InputError(f"a value cannot be read ({what}): cast its column to text") from error
        return {name: _as_json(value, MOST_LEVELS) if name == "id" else value for name, value in values.items()}

    def id(self) -> Any:  # noqa: ANN401  JSON types
        """See `FileRow`; it is read alone, whatever the other columns hold."""
        if "id" not in self.batch.schema.names:
            return None
        return super(ParquetRow, replace(self, batch=self.batch.select(["id"]))).id()


def _as_json(value: object, levels: int) -> Any:  # noqa: ANN401  JSON types
    """An id in JSON types: what JSON does not have (times, decimals, bytes that are text) becomes text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise InputError(f"the id is {value}, which JSON does not have: give null or text")
        return float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError("the id is bytes that are not UTF-8: cast it to text") from error
    if isinstance(value, dict | list | tuple):  # a map is a list of tuples
        if not levels:
            raise InputError(f"the id is nested more than {MOST_LEVELS} levels deep: give text")
        if isinstance(value, dict):
            return {name: _as_json(inner, levels - 1) for name, inner in value.items()}
        return [_as_json(inner, levels - 1) for inner in value]
    return value.isoformat() if isinstance(value, date | time) else str(value)


def open_source(path: Path) -> "Source":
    """A reader of the format that the name's ending says.

    Raises:
        InputError: no such file, an unknown ending, or Parquet that is damaged or whose columns are not a tweet's.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: give one of JSON lines or Parquet")
    if path.suffix in JSON_LINES:
        return JsonLines(path)
    if path.suffix in PARQUET:
        return Parquet(path)
    raise InputError(f"{path} must end in {', '.join(JSON_LINES + PARQUET)}, which says how to read it")


class JsonLines:
    """A file of JSON lines, each of which is a row unless it is blank.

    Attributes:
        id_type: type of the column `id` of an answer in Parquet.
        size: what `index` counts its progress in: bytes here, rows of Parquet.
    """

    id_type = pa.string()

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def index(self, part_rows: int, tick: Tick) -> list[Part]:
        """Cut into parts of `part_rows` rows, or of a power of two times as many where there would be too many.

        Args:
            part_rows: rows of a part; the last may have fewer.
            tick: told how much was read, for progress.
        """
        marks: list[tuple[int, int]] = []  # offset and line of the first row of each part
        ticked = rows = 0
        with self._path.open("rb") as file:
            for line in read_lines(file):
                if rows % part_rows == 0:
                    marks.append((line.offset, line.number))
                    tick(line.offset - ticked)
                    ticked = line.offset
                if len(marks) > MOST_PARTS:
                    marks, part_rows = marks[::2], 2 * part_rows
                rows += 1
            tick(file.tell() - ticked)
        return [
            Part(number, first, min(part_rows, rows - number * part_rows), start)
            for number, (start, first) in enumerate(marks)
        ]

    def read(self, part: Part) -> Iterator[FileRow]:
        """The rows of a part, in order."""
        with self._path.open("rb") as file:
            file.seek(part.start)
            yield from islice(line_rows(file, self._path.parent, part.first), part.rows)


class Parquet:
    """A Parquet file, used as `JsonLines`. Columns are named as its keys; `image` and `objects` hold paths or bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                schema, metadata = file.schema_arrow, file.metadata
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is not a Parquet file, or damaged: {error}") from error
        self.size = metadata.num_rows
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._group_starts = [0, *accumulate(groups)]
        self.id_type = _id_type(path, schema)

    def index(self, part_rows: int, tick: Tick) -> list[Part]:
        """See `JsonLines.index`."""
        while part_rows * MOST_PARTS < self.size:
            part_rows *= 2
        tick(self.size)
        return [
            Part(number, start + 1, min(part_rows, self.size - start), start)
            for number, start in enumerate(range(0, self.size, part_rows))
        ]

    def read(self, part: Part) -> Iterator[FileRow]:
        """See `JsonLines.read`. Rows of the row group before the part are decoded too: Parquet has no shorter way."""
        end = part.start + part.rows
        bounds = list(zip(self._group_starts, self._group_starts[1:], strict=False))
        groups = [group for group, (first, last) in enumerate(bounds) if first < end and last > part.start]
        if not groups:
            return  # the file has shrunk, and who counts these rows finds too few
        position = bounds[groups[0]][0]
        try:
            with pq.ParquetFile(self._path) as file:
                for batch in file.iter_batches(_READ_ROWS, row_groups=groups):
                    for row in range(max(position, part.start), min(position + len(batch), end)):
                        yield ParquetRow(row + 1, self._path.parent, batch.slice(row - position, 1))
                    position += len(batch)
                    if position >= end:
                        return
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self._path} cannot be read after row {position}: {error}") from error


Source: TypeAlias = JsonLines | Parquet
"""Files of tweets."""


def _id_type(path: Path, schema: pa.Schema) -> pa.DataType:
    unknown = [name for name in schema.names if name not in KEYS]
    if unknown:
        raise InputError(f"{path} has columns {brief(unknown)}: drop or rename them, a tweet has {', '.join(KEYS)}")
    if repeated := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(f"{path} has more than one column {', '.join(repeated)}: drop or rename the others")
    if "id" not in schema.names:
        return pa.null()
    found = schema.field("id").type
    if pa.types.is_dictionary(found):
        found = found.value_type
    kept = (pa.types.is_integer, pa.types.is_null, pa.types.is_boolean, pa.types.is_floating)
    return found if any(is_kept(found) for is_kept in kept) else pa.string()
