"""Tweets as JSON objects, one a line."""

import json
import math
from abc import ABC, abstractmethod
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.types import Tweet

KEYS = ("id", "text", "words", "image", "objects", "boxes", "head", "tail")
"""Keys of a tweet."""

MOST_LEVELS = 32
"""Levels of lists and objects within each other in one value: an answer carries the id, and writing a deep one would
end the run."""

LONGEST_LINE = 2**20
"""Characters of a line; as Python objects it may take twenty times its length."""


def json_line(value: Any) -> str:  # noqa: ANN401  JSON types
    """JSON without a line's end. Half a surrogate pair, which has no UTF-8, becomes a backslash escape: JSON again."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def parse_line(line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        InputError: the line is not a JSON object, is longer than `LONGEST_LINE` or nested too deeply, or has a number
            that JSON does not have (NaN, 1e999).
    """
    if len(line) > LONGEST_LINE:
        raise _too_long(len(line))
    try:
        values = json.loads(line, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise InputError(f"not JSON: {_TOO_DEEP}") from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"not a JSON object but {type(values).__name__}")
    if any(_is_deeper(value, MOST_LEVELS) for value in values.values()):
        raise InputError(_TOO_DEEP)
    return values


def tweet_from_dict(values: Mapping[str, Any], folder: Path) -> Tweet:
    """A tweet from JSON types; a picture is a path, a relative one counted from `folder`.

    From Parquet it may be bytes. An object of `bytes` and `path` stands for its bytes, or where they are None for its
    path. Only None, or no key, means that it is not given; a crop is never None.

    Raises:
        InputError: a key is unknown, or a value of the wrong type.
    """
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise InputError(f"unknown keys {brief(', '.join(unknown))}: a tweet has {', '.join(KEYS)}")
    objects = _list(values, "objects")
    read = {
        "words": _list(values, "words"),
        "image": None if values.get("image") in (None, _NO_PICTURE) else _picture(values["image"], folder),
        "objects": None if objects is None else [_picture(given, folder) for given in objects],
        "boxes": _list(values, "boxes"),
    }
    return Tweet(**{**values, **read})


@dataclass(frozen=True)
class FileRow(ABC):
    """A tweet in a file; a `Row` of a stream.

    Attributes:
        number: of the row or line, from 1.
        folder: what relative paths of pictures count from.
    """

    number: int
    folder: Path

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """The row as JSON types, and in Parquet bytes for pictures.

        Raises:
            InputError: it cannot be read.
        """

    def tweet(self) -> Tweet:
        """The tweet of the row.

        Raises:
            InputError: see `values` and `tweet_from_dict`.
        """
        return tweet_from_dict(self.values(), self.folder)

    def id(self) -> Any:  # noqa: ANN401  whatever the row says
        """The row's id, or None where it cannot be read."""
        try:
            return self.values().get("id")
        except InputError:
            return None


@dataclass(frozen=True)
class LineRow(FileRow):
    """A line of a file, without its end."""

    line: str

    def values(self) -> dict[str, Any]:
        """See `FileRow`."""
        return parse_line(self.line)


@dataclass(frozen=True)
class LongLineRow(FileRow):
    """A line that is too long to be kept, of so many characters."""

    characters: int

    def values(self) -> dict[str, Any]:
        """Raises what `parse_line` would."""
        raise _too_long(self.characters)


def read_rows(path: Path) -> Iterator[FileRow]:
    """The rows of a file, which is opened at once; it may be a pipe.

    Raises:
        InputError: it cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a file of JSON lines") from error

    def rows() -> Iterator[FileRow]:
        with file:
            yield from line_rows(file, path.parent)

    return rows()


def line_rows(file: BinaryIO, folder: Path, first: int = 1) -> Iterator[FileRow]:
    """The rows of a file from where it stands, which is line `first`; bytes that are not UTF-8 become surrogates."""
    for line in read_lines(file, first):
        text = line.start.decode("utf-8", "surrogateescape").rstrip("\r\n")
        characters = line.characters or len(text)
        if characters > LONGEST_LINE:
            yield LongLineRow(line.number, folder, characters)
        else:
            yield LineRow(line.number, folder, text)


class RawLine(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: from 1.
        offset: where it begins, in bytes from where reading began.
        start: its bytes, without the file's byte order mark; of a line that is too long, none.
        characters: of a line that is too long; of others 0.
    """

    number: int
    offset: int
    start: bytes
    characters: int = 0


def read_lines(file: BinaryIO, first: int = 1) -> Iterator[RawLine]:
    """The lines of a file from where it stands, which is line `first`, in memory that no line's length moves.

    A line of nothing but white space is passed over, and counted.
    """
    most = 4 * LONGEST_LINE + len(BOM_UTF8) + len(b"\r\n")  # bytes; a character has four at most
    offset = 0
    for number in count(first):
        line = file.readline(most)
        if not line:
            return
        begin, offset = offset, offset + len(line)
        start = line.removeprefix(BOM_UTF8) if number == 1 else line
        if len(line) == most and not line.endswith(b"\n"):
            passed, characters, is_blank = _pass_over(file, start, most)
            offset += passed
            if not is_blank:
                yield RawLine(number, begin, b"", characters)
        elif start and not start.isspace():
            yield RawLine(number, begin, start)


def _pass_over(file: BinaryIO, start: bytes, most: int) -> tuple[int, int, bool]:
    """Read the rest of a line: its bytes, the characters of the whole line, and whether all are white space."""
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    passed, characters, is_blank = 0, len(decoder.decode(start)), start.isspace()
    while more := file.readline(most):
        passed += len(more)
        is_blank = is_blank and more.isspace()
        characters += len(decoder.decode(more.removesuffix(b"\n")))
        if more.endswith(b"\n"):
            break
    return passed, characters + len(decoder.decode(b"", final=True)), is_blank


def _too_long(characters: int) -> InputError:
    return InputError(f"a line of {characters} characters: more than {LONGEST_LINE} are not read")


_TOO_DEEP = f"lists and objects are nested more than {MOST_LEVELS} levels deep"


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number[:40]} is not a finite number")
    return value


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)


def _list(values: Mapping[str, Any], key: str) -> list[Any] | None:
    value = values.get(key)
    if value is not None and not isinstance(value, list):
        raise InputError(f"{key} must be a list, not {type(value).__name__}")
    return value


_NO_PICTURE = {"bytes": None, "path": None}
"""As Hugging Face's datasets write a picture that is not there."""


def _picture(given: object, folder: Path) -> Path | bytes:
    picture = given
    if isinstance(given, dict) and set(given) == {"bytes", "path"}:  # as Hugging Face's datasets write pictures
        content, path = given["bytes"], given["path"]
        is_path = content is None and isinstance(path, str)  # a text of `bytes` would be base64, which is no path
        picture = path if is_path else content if isinstance(content, bytes) else None
    if isinstance(picture, bytes):
        return picture
    if not isinstance(picture, str) or not picture:
        raise InputError(f"a picture must be the path of a file, not {brief(given)}")
    return folder / picture
