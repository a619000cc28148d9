"""Tweets and results as JSON objects, one a line."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.types import Result, Tweet

KEYS = ("id", "text", "words", "image", "objects", "boxes", "head", "tail")
"""Of a tweet."""


def parse_line(line: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        InputError: the line is not a JSON object.
    """
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


def result_to_dict(result: Result) -> dict[str, Any]:
    """A result as JSON types."""
    return asdict(result)


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
