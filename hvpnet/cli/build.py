"""Build the bundle's TensorRT engines, from its ONNX graphs and without PyTorch."""

import argparse
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import add_json, progress, select, show
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import EngineName
from hvpnet_runtime.backends.tensorrt.record import BuildRecord
from hvpnet_runtime.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", required=True, choices=get_args(EngineName))
    parser.add_argument("--precision", default="fp16", choices=("fp16", "fp32"), help="of the graphs (default fp16)")
    parser.add_argument("--max-batch", type=int, default=32, help="most texts in one run (default 32)")
    parser.add_argument(
        "--max-seq", type=int, help="most pieces of a text; longer ones are cut there (default: the bundle's limit)"
    )
    parser.add_argument("--workspace", type=float, help="most MiB of scratch memory (default: the library's)")
    parser.add_argument(
        "--optimisation-level", type=int, help="0 to 5; more is slower to build (default: the library's)"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Build and say what was built."""
    workspace = None if options.workspace is None else int(options.workspace * 2**20)
    build = select(BuildOptions, options, max_length=options.max_seq, workspace=workspace)
    progress("checking the bundle's files")
    folder = build_engines(Bundle.load(options.bundle), build, progress)
    record = BuildRecord.read(folder)
    show(
        {
            "engines": str(folder),
            "version": record.version,
            "for": record.runs_on,
            "precision": record.precision,
            **{f"{name} bytes": facts.bytes for name, facts in record.files.items()},
            **{f"{graph} seconds": seconds for graph, seconds in record.seconds.items()},
            **{f"{graph} profiles": len(profiles) for graph, profiles in record.profiles.items()},
        },
        as_json=options.json,
    )
    return 0
