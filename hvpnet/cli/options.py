"""How a verb declares its options, those that several verbs share, and how results and progress are shown.

A verb's options are the fields of its dataclass `Options`: each says what it means with `argument` (given by place) or
`option` (given by name), and its type decides how the command line is read.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import get_annotations
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar, get_args, get_origin, get_type_hints

from shtab import FILE

from hvpnet.cli.terminal import Counter
from hvpnet_runtime.backends import AUTO, BACKENDS
from hvpnet_runtime.bundle import Precision
from hvpnet_runtime.jsonl import json_line
from hvpnet_runtime.preprocessing.pictures import Jpeg, OnBadImage
from hvpnet_runtime.types import ObjectSource

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SEARCHED = 32  # tweets between two messages

Kind = TypeVar("Kind", bound="DataclassInstance")


def argument(help: str | None = None, **settings: Any) -> Any:  # noqa: A002, ANN401  argparse's word; any field's type
    """A field that is given by its place; `settings` as of `ArgumentParser.add_argument`."""
    return field(metadata={"settings": settings | {"help": help}})


def option(help: str | None = None, *, one_of: str | None = None, **settings: Any) -> Any:  # noqa: A002, ANN401
    """A field that is given as `--its-name`; of those with the same `one_of`, only one may be given."""
    return field(metadata={"settings": settings | {"help": help}, "one_of": one_of, "flag": True})


def add_options(parser: argparse.ArgumentParser, kind: type["DataclassInstance"], *, by_place: bool = True) -> None:
    """Declare the fields of a verb's dataclass: its own first, then those it shares; or only those given by name."""
    by_name, types = {each.name: each for each in fields(kind)}, get_type_hints(kind)
    groups: dict[str, Any] = {}
    for name in (name for owner in kind.__mro__ for name in get_annotations(owner)):
        metadata = by_name[name].metadata
        settings = _settings_of(types[name]) | metadata["settings"]
        if "flag" not in metadata:
            if not by_place:
                continue
            _completed(parser.add_argument(name, **settings))
            continue
        target: Any = parser
        if group := metadata["one_of"]:
            required = settings.pop("required", False)
            if group not in groups:
                groups[group] = parser.add_mutually_exclusive_group(required=required)
            target = groups[group]
        _completed(target.add_argument(f"--{name.replace('_', '-')}", **settings))


def _completed(action: argparse.Action) -> None:
    """Paths are completed by shells: this is how shtab is told."""
    if action.type is Path:
        action.complete = FILE  # type: ignore[attr-defined]


def _settings_of(hint: Any) -> dict[str, Any]:  # noqa: ANN401  a type
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if hint in (int, float, Path):
        return {"type": hint}
    inner = [each for each in get_args(hint) if each not in (NoneType, Ellipsis)]
    return _settings_of(inner[0]) if inner else {}


def in_options(message: str, kind: type["DataclassInstance"]) -> str:
    """A message of the library in options of a verb.

    A cure in it is `the option name`, `name="value"`, `name=True` or `name=N`.
    """
    for name in (each.name for each in fields(kind) if each.metadata.get("flag")):
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"\b{name}=True\b|\bthe option {name}\b", flag, message)
        message = re.sub(rf'\b{name}=(?:"([^"]*)"|([A-Z]+)\b)', rf"{flag} \1\2", message)
    return message


def select(kind: type[Kind], source: object, **values: object) -> Kind:
    """A dataclass whose fields are the source's of the same names, but for the values given here."""
    names = {each.name for each in fields(kind)} - values.keys()
    return kind(**{name: getattr(source, name) for name in names}, **values)


@dataclass(frozen=True, kw_only=True)
class VerbOptions:
    """Options of every verb."""

    debug: bool = option("log what is done, and show the traceback of an error")


@dataclass(frozen=True, kw_only=True)
class ShownOptions(VerbOptions):
    """Options of verbs that print a result."""

    json: bool = option("print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class PictureOptions(VerbOptions):
    """Options of verbs that read pictures."""

    on_bad_image: OnBadImage = option(
        "a whole picture that cannot be read is an error, or replaced by inf.png beside it as published",
        default="error",
    )


@dataclass(frozen=True, kw_only=True)
class WindowOptions(VerbOptions):
    """Options of verbs that meet texts beyond the piece budget."""

    window: bool = option("slide over long texts instead of cutting them")


def backend_option(default: str | None) -> Any:  # noqa: ANN401  any field's type
    """`--backend`: what runs the graphs."""
    return option(
        f"what runs the graphs; auto is the first that loads of {', '.join(AUTO)}",
        default=default,
        choices=("auto", *BACKENDS),
    )


def jpeg_option(default: Jpeg | None) -> Any:  # noqa: ANN401  any field's type
    """`--jpeg`: how large JPEGs are decoded."""
    return option(
        "decode large JPEGs in full, or scaled: at a half, a quarter or an eighth of their size, several times as fast,"
        " with slightly different pixels",
        default=default,
    )


def objects_option() -> Any:  # noqa: ANN401  any field's type
    """`--objects`: which objects of a tweet are read."""
    return option(
        "read only the objects that tweets give, only those that the bundle's grounder finds, or none (default: those"
        " that a tweet gives, and where it gives none, those that are found, if the bundle has a grounder)"
    )


def precision_option() -> Any:  # noqa: ANN401  any field's type
    """`--precision`: which graphs are run."""
    return option(
        "graphs of the bundle to run (default: fp32 on a CPU, fp16 on a GPU, where the bundle has them);"
        " bf16 are the fp32 graphs, computed so by openvino",
        choices=(*get_args(Precision), "bf16"),
    )


def device_option(
    description: str = "number of the GPU to run on, from 0; auto is then a backend of a GPU (default: the first GPU,"
    " if any)",
) -> Any:  # noqa: ANN401  any field's type
    """`--device`: a GPU by its number."""
    return option(
        description,
        type=_gpu_number,
        metavar="N",
    )


def _gpu_number(given: str) -> int:
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"GPUs are numbered from 0, and {given!r} is no such number")
    return int(given)


@dataclass(frozen=True, kw_only=True)
class PipelineOptions(PictureOptions, ShownOptions):
    """Options of verbs that run a bundle on tweets."""

    backend: str = backend_option(default="auto")
    precision: str | None = precision_option()
    device: int | None = device_option()
    jpeg: Jpeg = jpeg_option(default="full")
    objects: ObjectSource | None = objects_option()


def note_missing_objects(count: int) -> None:
    """Say on standard error how many tweets came without objects, if any did."""
    if count:
        print(
            f"hvpnet: tweets with a picture that came without objects, which are blank to the model: {count}; give"
            " objects or boxes, or give the bundle a grounder with hvpnet ground add; or say --objects given",
            file=sys.stderr,
        )


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result whose keys are snake_case: as JSON, or for people.

    For people, a name and its value are a line. Values by name are a line each, `dev f1` for `{"dev": {"f1": ...}}`;
    rows of values are a table.
    """
    if as_json:
        print(json_for(sys.stdout, result))
        return
    shown = dict(_lines(result))
    width = max(map(len, shown), default=0)
    for name, lines in shown.items():
        print(f"{name:<{width}}  {lines[0]}".rstrip())
        for line in lines[1:]:
            print(f"{'':<{width}}  {line}")


def json_for(output: TextIO, value: object) -> str:
    """JSON in one line; characters that the output's encoding cannot show are escaped, as JSON escapes them."""
    line = json_line(value)
    try:
        line.encode(output.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


def progress(message: str) -> None:
    """Say on standard error what begins now."""
    print(f"hvpnet: {message} ...", file=sys.stderr, flush=True)


def note(message: str) -> None:
    """Say on standard error what was done."""
    print(f"hvpnet: {message}", file=sys.stderr, flush=True)


def searched() -> Callable[[str, int, int], None]:
    """What says on standard error how far a search for objects is: the split, tweets that are done, and all."""
    counter = Counter()

    def show_searched(split: str, done: int, total: int) -> None:
        if done % _SEARCHED == 0 or done == total:
            counter.show(f"{split}: {done} of {total} tweets searched", is_last=done == total)

    return show_searched


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Names as people read them, and the lines of what they are."""
    for key, value in result.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and any(not isinstance(each, Mapping) for each in value.values()):
            yield from ((f"{name} {inner}", [_plain(each)]) for inner, each in value.items())
        elif isinstance(value, Mapping):
            yield name, _table([{"": inner, **row} for inner, row in value.items()])
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield name, _table(value)
        else:
            yield name, [_plain(value)]


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Lines of a table: a column for each value of a row."""
    if not rows:
        return ["none"]
    table = [list(rows[0]), *([_plain(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
