"""Frozen dataclasses from TOML tables and back: keys are fields, every value is checked against its annotation."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from hvpnet.errors import ConfigError

Options = TypeVar("Options")


def parse_table(kind: type[Options], table: object, folder: Path, name: str = "") -> Options:
    """Makes a dataclass from a TOML table.

    Fields are whole numbers, numbers, strings, choices (`Literal`), paths, tuples of whole numbers, dataclasses (tables
    again), or a union of these with None.

    Args:
        kind: the dataclass; its own checks may raise `ConfigError`.
        table: what `tomllib` read.
        folder: what paths are relative to.
        name: how the file calls the table; empty for the file itself.

    Raises:
        ConfigError: a key is unknown or missing, or a value is impossible; the message names it.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{name} must be a table [{name}], not {table!r}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    dotted = {key: f"{name}.{key}" if name else key for key in (*known, *table)}
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {dotted[key]}: known are {', '.join(known)}")
    for key, field in known.items():
        if field.default is MISSING and key not in table:
            raise ConfigError(f"{dotted[key]} is missing: add it")
    values = {key: _parse(known[key].type, value, folder, dotted[key]) for key, value in table.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"[{name}]: {error}") from error


def write_table(options: object, name: str = "") -> str:
    """The TOML text that `parse_table` makes these options of, with absolute paths; None is left out.

    Args:
        options: a dataclass.
        name: of the table; empty for the file itself.
    """
    values = asdict(options) if is_dataclass(options) and not isinstance(options, type) else {}
    return "\n".join(_lines(values, name)) + "\n"


def _parse(annotation: object, value: object, folder: Path, name: str) -> object:
    """The first kind of the annotation that the value is of."""
    if get_origin(annotation) is Literal:
        if value in get_args(annotation):
            return value
        raise ConfigError(f"{name} must be one of {', '.join(get_args(annotation))}, not {value!r}")
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    for kind in kinds:
        if isinstance(kind, type) and is_dataclass(kind) and (isinstance(value, Mapping) or len(kinds) == 1):
            return parse_table(kind, value, folder, name)
        if kind is Path and isinstance(value, str) and value:
            return (folder / value).resolve()
        if kind is float and type(value) in (int, float) and math.isfinite(float(str(value))):
            return float(str(value))
        if get_origin(kind) is tuple and isinstance(value, list) and all(type(entry) is int for entry in value):
            return tuple(value)
        if kind in (int, str) and type(value) is kind:
            return value
    raise ConfigError(f"{name} must be {' or '.join(map(_describe, kinds))}, not {value!r}")


def _alternatives(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _describe(kind: object) -> str:
    if is_dataclass(kind):
        return "a table"
    words: dict[object, str] = {int: "a whole number", float: "a number", str: "a string", Path: "a path"}
    return words.get(kind, "a list of whole numbers")


def _lines(values: Mapping[str, Any], name: str) -> list[str]:
    """The table's own keys, then the tables in it: what follows a table's header in TOML belongs to that table."""
    own = {key: value for key, value in values.items() if value is not None and not isinstance(value, Mapping)}
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {json.dumps(value, default=str)}" for key, value in own.items()]  # default: paths
    for key, value in inner.items():
        lines += ["", *_lines(value, f"{name}.{key}" if name else key)]
    return lines
