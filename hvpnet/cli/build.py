"""Build the bundle's TensorRT engines, from its ONNX graphs and without PyTorch."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from hvpnet.cli.options import ShownOptions, argument, device_option, option, progress, select, show
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import EngineName
from hvpnet_runtime.backends.tensorrt.record import PRECISIONS, BuildRecord
from hvpnet_runtime.bundle import Bundle, Precision
from hvpnet_runtime.errors import brief


def _gpus(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    if not all(re.fullmatch(r"\d+\.\d", name) for name in names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{brief(value)}: give compute capabilities, such as 8.9,12.0, each once")
    return names


@dataclass(frozen=True, kw_only=True)
class Options(ShownOptions):
    """What `hvpnet build` was asked to do."""

    bundle: Path = argument()
    engine: EngineName = option(required=True)
    precision: Precision = option("of the graphs (default fp16)", choices=PRECISIONS, default="fp16")
    max_batch: int = option("most texts in one run (default 32)", default=32)
    max_seq: int | None = option("most pieces of a text; longer ones are cut there (default: the bundle's limit)")
    workspace: float | None = option("most MiB of scratch memory (default: the library's)")
    optimisation_level: int | None = option(
        "0 to 5; more is slower to build (default: the library's); makes no difference to tensorrt-rtx"
    )
    gpus: tuple[str, ...] = option(
        "comma-separated compute capabilities, such as 8.9,12.0, that tensorrt-rtx builds for (default: all that it"
        " knows but 7.5, which it builds best by itself)",
        type=_gpus,
        default=(),
    )
    device: int | None = device_option(
        "number of the GPU, from 0, that tensorrt builds on and for (default: the first)"
    )


def run(options: Options) -> int:
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
            "runs_on": record.runs_on,
            "precision": record.precision,
            "attention": record.attention or "the library does not say",
            "kernels": {graph: max(counts) for graph, counts in record.kernels.items()},
            "bytes": {name.removesuffix(".plan"): facts.bytes for name, facts in record.files.items()},
            "seconds": record.seconds,
            "profiles": {graph: len(profiles) for graph, profiles in record.profiles.items()},
        },
        as_json=options.json,
    )
    return 0
