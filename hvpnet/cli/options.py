"""Options that several verbs share, and how results and progress are shown."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from hvpnet_runtime.backends import AUTO, BACKENDS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Selected = TypeVar("Selected", bound="DataclassInstance")


def select(kind: type[Selected], parsed: argparse.Namespace, **values: object) -> Selected:
    """A dataclass whose fields are the options of the same names, but for the values given here."""
    names = {field.name for field in fields(kind)} - values.keys()
    return kind(**{name: getattr(parsed, name) for name in names}, **values)


def add_pipeline(parser: argparse.ArgumentParser) -> None:
    """What the verbs share that run a bundle on tweets."""
    add_backend(parser)
    add_pictures(parser)
    add_json(parser)


def add_window(parser: argparse.ArgumentParser) -> None:
    """`--window`: what to do about a text beyond the piece budget."""
    parser.add_argument("--window", action="store_true", help="slide over long texts instead of cutting them")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: the result for machines."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """`--backend` and `--precision`: what runs which graphs."""
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", *BACKENDS),
        help=f"what runs the graphs; auto is the first that loads of {', '.join(AUTO)}",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8", "bf16"),
        help="graphs of the bundle to run (default: fp32 on a CPU, fp16 on a GPU, where the bundle has them);"
        " bf16 are the fp32 graphs, computed so by openvino",
    )


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """`--on-bad-image`: what to do about an unreadable whole picture."""
    parser.add_argument(
        "--on-bad-image",
        default="error",
        choices=("error", "substitute"),
        help="a whole picture that cannot be read is an error, or replaced by inf.png beside it as published",
    )


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result: as JSON, or one `name: value` a line."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    width = max(map(len, result)) if result else 0
    for name, value in result.items():
        print(f"{name:<{width}}  {_plain(value)}")


def progress(message: str) -> None:
    """Say on standard error what begins now."""
    print(f"hvpnet: {message} ...", file=sys.stderr, flush=True)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
