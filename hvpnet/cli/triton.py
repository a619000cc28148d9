"""Write a Triton model repository of a bundle. Needs no PyTorch."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from hvpnet.cli.options import add_json, progress, select, show
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.triton import Form, RepositoryOptions, write_repository


@dataclass(frozen=True)
class Options:
    """What `hvpnet triton` was asked to do."""

    bundle: Path
    out: Path
    repository: RepositoryOptions
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        return select(cls, parsed, repository=select(RepositoryOptions, parsed))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path, help="the repository's folder; must not exist")
    parser.add_argument(
        "--form",
        default="onnxruntime",
        choices=get_args(Form),
        help="Triton's backend for the graphs, or all in its Python backend (default onnxruntime)",
    )
    parser.add_argument(
        "--graphs",
        help="precision of the ONNX graphs (default: fp16 where there is one, else fp32), or which folder of engines/"
        " (default: the only one)",
    )
    parser.add_argument("--name", default="hvpnet", help="of the model that answers requests (default hvpnet)")
    parser.add_argument("--max-batch", type=int, help="most tweets in one run (default 32)")
    parser.add_argument("--instances", type=int, default=1, help="processes of the Python model (default 1)")
    add_json(parser)


def run(options: Options) -> int:
    """Write the repository and say what is in it."""
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    progress("copying them")
    models = write_repository(bundle, options.out, options.repository)
    show({"repository": str(options.out), "form": options.repository.form, "models": models}, as_json=options.json)
    return 0
