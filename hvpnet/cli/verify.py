"""Hold a bundle's graphs against the checkpoint they came from, on values and on decisions."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from hvpnet.cli.options import add_json, add_pictures, progress, show
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preparation import OnBadImage

if TYPE_CHECKING:
    from hvpnet import HVPNeT
    from hvpnet_export.parity import Request


@dataclass(frozen=True)
class Options:
    """What `hvpnet verify` was asked to do."""

    bundle: Path
    checkpoint: Path
    data: Path | None
    on_bad_image: OnBadImage
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        return cls(**{name: getattr(parsed, name) for name in cls.__dataclass_fields__})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="what the bundle was exported from")
    parser.add_argument("--data", type=Path, help="int8: folder of the training data, on whose tweets it is compared")
    add_pictures(parser)
    add_json(parser)


def run(options: Options) -> int:
    """Compare every precision; exit code 1 if one fails."""
    progress("checking the bundle's files")
    bundle = Bundle.load(options.bundle)
    if "int8" in bundle.precisions and options.data is None:
        raise DataError("the bundle has int8 graphs, which are compared on tweets: give the training data (--data)")
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
        tweets = _tweets(options.data, options, model) if precision == "int8" and options.data else None
        report = compare(model, bundle.onnx("text", precision).parent, cast("Precision", precision), tweets)
        show({"precision": precision, **report.to_dict()}, as_json=options.json)
        report.require()
    return 0


def _tweets(data: Path, options: Options, model: "HVPNeT") -> Iterator["Request"]:
    """Those on which exporting with this data set verifies."""
    from hvpnet.data import load_split
    from hvpnet.tokenizer import load_tokenizer
    from hvpnet_export.calibration import CalibrationData, requests

    chosen = CalibrationData.choose(load_split(data, "train", options.on_bad_image), model.config)
    return requests(model.config, load_tokenizer(options.bundle, model.config.task), chosen.verification)
