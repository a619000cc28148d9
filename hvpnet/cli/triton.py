"""Write a Triton model repository of a bundle. Needs no PyTorch."""

import argparse
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import add_json, progress, select, show
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.triton import Form, RepositoryOptions, write_repository


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


def run(options: argparse.Namespace) -> int:
    """Write the repository and say what is in it."""
    repository = select(RepositoryOptions, options)
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    progress("copying them")
    models = write_repository(bundle, options.out, repository)
    show({"repository": str(options.out), "form": repository.form, "models": models}, as_json=options.json)
    return 0
