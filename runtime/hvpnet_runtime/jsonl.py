"""Tweets and results as JSON objects, one a line."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.types import Result, Tweet

_KEYS = ("id", "text", "words", "image", "objects", "boxes", "head", "tail")


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
    """A tweet from JSON types; pictures are paths, relative ones counted from `folder`.

    Raises:
        InputError: a key is unknown, or a value of the wrong type.
    """
    unknown = sorted(set(values) - set(_KEYS))
    if unknown:
        raise InputError(f"unknown keys {', '.join(unknown)}: a tweet has {', '.join(_KEYS)}")
    image = _path(values.get("image"), folder)
    return Tweet(
        text=values.get("text"),
        words=values.get("words"),
        image=image,
        objects=[path for name in _list(values, "objects") if (path := _path(name, folder))],
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


def _path(name: object, folder: Path) -> Path | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name:
        raise InputError(f"a picture must be the path of a file, not {name!r}")
    return folder / name
