"""Tweets as JSON objects, one a line."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.types import Tweet

KEYS = ("id", "text", "words", "image", "objects", "boxes", "head", "tail")
"""Keys of a tweet."""

LONGEST_LINE = 2**20
"""Characters of a line; as Python objects it may take twenty times its length."""


def json_line(value: Any) -> str:  # noqa: ANN401  JSON types
    """JSON without a line's end. Half a surrogate pair, which has no UTF-8, becomes a backslash escape: JSON again."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def parse_line(line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        InputError: the line is not a JSON object, or longer than `LONGEST_LINE`.
    """
    if len(line) > LONGEST_LINE:
        raise InputError(f"a line of {len(line)} characters: more than {LONGEST_LINE} are not read")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"not a JSON object but {type(values).__name__}")
    return values


def tweet_from_dict(values: Mapping[str, Any], folder: Path) -> Tweet:
    """A tweet from JSON types; a picture is a path, a relative one counted from `folder`, or bytes, as in Parquet.

    Raises:
        InputError: a key is unknown, or a value of the wrong type.
    """
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise InputError(f"unknown keys {', '.join(unknown)}: a tweet has {', '.join(KEYS)}")
    image = _picture(values.get("image"), folder)
    return Tweet(
        text=values.get("text"),
        words=None if values.get("words") is None else _list(values, "words"),
        image=image,
        objects=[crop for given in _list(values, "objects") if (crop := _picture(given, folder)) is not None],
        boxes=_list(values, "boxes"),
        head=values.get("head"),
        tail=values.get("tail"),
        id=values.get("id"),
    )


@dataclass(frozen=True)
class LineRow:
    """A tweet as a line of a file; a `Row` of a stream.

    Attributes:
        number: of the line, from 1.
        line: without its end.
        folder: what relative paths of pictures count from.
    """

    number: int
    line: str
    folder: Path

    def tweet(self) -> Tweet:
        """The tweet of the line.

        Raises:
            InputError: see `parse_line` and `tweet_from_dict`.
        """
        return tweet_from_dict(parse_line(self.line), self.folder)

    def id(self) -> Any:  # noqa: ANN401  whatever the line says
        """The line's id, or None where it cannot be read."""
        try:
            return parse_line(self.line).get("id")
        except InputError:
            return None


def read_rows(path: Path) -> Iterator[LineRow]:
    """The rows of a file, which is opened at once.

    Raises:
        OSError: the file cannot be read.
    """
    file = path.open("rb")

    def rows() -> Iterator[LineRow]:
        with file:
            yield from line_rows(file, path.parent)

    return rows()


def line_rows(lines: Iterable[bytes], folder: Path, first: int = 1) -> Iterator[LineRow]:
    """Lines that are not blank, numbered from `first`; bytes that are not UTF-8 are kept as surrogates."""
    for number, line in enumerate(lines, first):
        if not line.isspace():
            yield LineRow(number, line.decode("utf-8", "surrogateescape").rstrip("\r\n"), folder)


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values.get(key) or []
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list, not {type(value).__name__}")
    return value


def _picture(given: object, folder: Path) -> Path | bytes | None:
    if given is None or isinstance(given, bytes):
        return given
    if not isinstance(given, str) or not given:
        raise InputError(f"a picture must be the path of a file, not {given!r}")
    return folder / given
