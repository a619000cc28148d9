"""Hold a bundle's graphs against the checkpoint they came from, on values and on decisions."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from hvpnet.cli.options import add_json, progress, show
from hvpnet_runtime.bundle import Bundle


@dataclass(frozen=True)
class Options:
    """What `hvpnet verify` was asked to do."""

    bundle: Path
    checkpoint: Path
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        return cls(parsed.bundle, parsed.checkpoint, parsed.json)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="what the bundle was exported from")
    add_json(parser)


def run(options: Options) -> int:
    """Compare every precision; exit code 1 if one fails."""
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    progress("loading PyTorch and the checkpoint")
    from hvpnet.checkpoint import load_checkpoint
    from hvpnet.layout import Hints
    from hvpnet_export.parity import Precision, compare, compare_decoder

    architecture = bundle.manifest["architecture"]
    hints = Hints(bundle.task, bundle.manifest["variant"], bundle.labels, bundle.max_length, architecture["bert"])
    model = load_checkpoint(options.checkpoint, hints)
    if bundle.task == "ner":
        compare_decoder(model, bundle.path / "decoder.npz")
    for precision in bundle.precisions:
        progress(f"comparing the {precision} graphs with the eager model")
        report = compare(model, bundle.onnx("text", precision).parent, cast("Precision", precision))
        show({"precision": precision, **report.to_dict()}, as_json=options.json)
        report.require()
    return 0
