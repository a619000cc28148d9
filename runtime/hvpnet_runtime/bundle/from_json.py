"""JSON values to frozen dataclasses, every value held against its annotation; needs no library."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def record_from_json(kind: type[Record], value: object, place: str = "") -> Record:
    """Make a dataclass of a JSON object whose keys are its fields.

    Fields are numbers, strings, booleans, `Literal`s, tuples, mappings by name, dataclasses, or one of these or None. A
    tuple of any length holds one value at least, unless the field's default is an empty one.

    Args:
        kind: the dataclass.
        value: what `json.loads` gave.
        place: what messages call the value; empty for the whole document.

    Raises:
        ValueError: a value is missing, unknown or of another type; the message names its place.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'it'} must be an object, not {_shown(value)}")  # noqa: TRY004  of the document
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ValueError(f"{place or 'it'} has unknown keys: {_shown(', '.join(unknown))}")
    found: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        at = f"{place}.{field.name}" if place else field.name
        if field.name in value and value[field.name] == [] and field.default == ():
            found[field.name] = ()
        elif field.name in value:
            found[field.name] = _parse(hints[field.name], value[field.name], at)
        elif field.default is MISSING:
            raise ValueError(f"{at} is missing")
    return kind(**found)


def _parse(kind: Any, value: object, place: str) -> object:  # noqa: ANN401  an annotation
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):  # `int | None` is the one, `Literal[...] | None` the other
        return None if value is None else _parse(next(each for each in arguments if each is not NoneType), value, place)
    if is_dataclass(kind) and isinstance(kind, type):
        return record_from_json(kind, value, place)
    if origin is tuple and isinstance(value, list) and value:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(map(_parse, kinds, value, (f"{place}[{index}]" for index in range(len(value)))))
    elif origin is Mapping and isinstance(value, dict):
        return {
            _parse(arguments[0], name, place): _parse(arguments[1], item, f"{place}.{name[:60]}")
            for name, item in value.items()
        }
    elif kind is Any or (origin is Literal and value in arguments) or (kind is not float and type(value) is kind):
        return value
    elif kind is float and type(value) in (int, float) and math.isfinite(float(str(value))):  # an int may be too large
        return float(str(value))
    raise ValueError(f"{place} is {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
