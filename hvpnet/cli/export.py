"""Turn a trained checkpoint into a bundle of two ONNX graphs, verified against the eager model before it is there."""

import argparse
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import add_json, add_pictures, progress, show
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import Task, Variant

PRECISIONS = ("fp32", "fp16", "int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="a published .pth state dict, or a folder of hvpnet train")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder; must not exist")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the BERT that was trained on")
    parser.add_argument("--task", choices=get_args(Task), help="refuse a checkpoint of the other task")
    parser.add_argument("--variant", choices=get_args(Variant), help="needed for only_obj, whose tensors are full's")
    parser.add_argument("--labels", type=Path, help="label names: a JSON object or list, or one a line")
    parser.add_argument("--max-length", type=int, help="pieces per tweet (default as published: ner 128, re 80)")
    parser.add_argument(
        "--precision",
        type=_precisions,
        default=("fp32",),
        help="comma-separated: fp32 (default; for CPUs), fp16 (strongly typed, for TensorRT and CUDA), int8 (for CPUs)",
    )
    parser.add_argument(
        "--calibration", type=Path, help="int8: folder of the training data, whose train split sets the ranges"
    )
    add_pictures(parser)
    add_json(parser)


def _precisions(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{value!r}: give each of {', '.join(PRECISIONS)} at most once")
    return names


def run(options: argparse.Namespace) -> int:
    """Export, verify, write.

    Raises:
        DataError: INT8 was asked for without data to calibrate on, or the other way round.
    """
    if ("int8" in options.precision) != (options.calibration is not None):
        raise DataError("--precision int8 and --calibration DATA, the folder of the training data, go together")
    progress("loading PyTorch and the checkpoint")
    from hvpnet.data import load_split
    from hvpnet.modeling.checkpoint import load_checkpoint, read_bert_config
    from hvpnet.modeling.infer_config import Hints, read_labels
    from hvpnet.modeling.tokenizer import load_tokenizer
    from hvpnet_export import CalibrationData, export_bundle

    hints = Hints(
        task=options.task,
        variant=options.variant,
        labels=read_labels(options.labels) if options.labels else None,
        max_length=options.max_length,
        bert=read_bert_config(options.tokenizer),
    )
    model = load_checkpoint(options.checkpoint, hints)
    tokenizer = load_tokenizer(options.tokenizer, model.config.task)
    calibration = None
    if options.calibration is not None:
        split = load_split(options.calibration, "train", options.on_bad_image)
        calibration = CalibrationData.choose(split, model.config)
    reports = export_bundle(
        model, tokenizer, options.out, progress, precisions=options.precision, calibration=calibration
    )
    config = model.config
    show(
        {
            "bundle": str(options.out),
            "task": config.task,
            "variant": config.variant,
            "labels": len(config.labels),
            **{f"parity {precision}": report.summary for precision, report in reports.items()},
        },
        as_json=options.json,
    )
    return 0
