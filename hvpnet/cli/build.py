"""Build the bundle's TensorRT engines, from its ONNX graphs and without PyTorch."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self, get_args

from hvpnet.cli.options import add_json, progress, select, show
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import EngineName
from hvpnet_runtime.backends.tensorrt.record import BuildRecord
from hvpnet_runtime.bundle import Bundle


@dataclass(frozen=True)
class Options:
    """What `hvpnet build` was asked to do."""

    bundle: Path
    build: BuildOptions
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        workspace = None if parsed.workspace is None else int(parsed.workspace * 2**20)
        build = select(BuildOptions, parsed, max_length=parsed.max_seq, workspace=workspace)
        return select(cls, parsed, build=build)


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


def run(options: Options) -> int:
    """Build and say what was built."""
    progress("checking the bundle's files")
    folder = build_engines(Bundle.load(options.bundle), options.build, progress)
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
