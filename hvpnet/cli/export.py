"""Turn a trained checkpoint into a bundle of two ONNX graphs, verified against the eager model before it is there."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from hvpnet.cli.grounder_options import GrounderOptions, grounder_option
from hvpnet.cli.options import PictureOptions, ShownOptions, argument, option, progress, show
from hvpnet.errors import ConfigError, DataError
from hvpnet.files import require_grounder
from hvpnet_runtime.bundle import QUANTISED, Precision, Task, Variant
from hvpnet_runtime.errors import brief

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hvpnet.modeling.config import HVPNeTConfig
    from hvpnet.modeling.model import HVPNeT
    from hvpnet_export import CalibrationData


def _precisions(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    unknown = [name for name in names if name not in get_args(Precision)]
    if unknown or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{brief(value)}: give each of {', '.join(get_args(Precision))} at most once")
    return names


@dataclass(frozen=True, kw_only=True)
class Options(GrounderOptions, PictureOptions, ShownOptions):
    """What `hvpnet export` was asked to do.

    Raises:
        ConfigError: a grounder is described and not given, or given to a model that reads no pictures.
        DataError: INT8 was asked for without data to calibrate on, or the other way round.
    """

    checkpoint: Path = argument("a published .pth state dict, or a folder of hvpnet train")
    out: Path = option("the bundle's folder; must not exist", required=True)
    tokenizer: Path | None = option(
        "folder of the BERT that was trained on (default: the tokenizer in a folder of hvpnet train)"
    )
    task: Task | None = option("refuse a checkpoint of the other task")
    variant: Variant | None = option("needed for only_obj, whose tensors are full's")
    labels: Path | None = option("label names: a JSON object or list, or one a line")
    heads: int | None = option("attention heads, where neither config.json nor the hidden size tells them")
    max_length: int | None = option("pieces per tweet (default as published: ner 128, re 80)")
    precision: tuple[Precision, ...] = option(
        "comma-separated: fp32 (default; for CPUs), fp16 (strongly typed, for TensorRT and CUDA), int8 (for CPUs),"
        " int8_fp16 (fp16 with INT8 products, for TensorRT)",
        type=_precisions,
        choices=None,
        default=("fp32",),
    )
    calibration: Path | None = option(
        "int8 and int8_fp16: folder of the training data, whose train split sets the ranges"
    )
    grounder: Path | None = grounder_option(required=False)
    keep_going: bool = option("write the bundle without the precisions that fail; the exit code still is 1")

    def __post_init__(self) -> None:
        if self.grounder is None and (self.grounder_tokenizer or self.queries):
            raise ConfigError("--grounder-tokenizer and --queries describe a grounder: give --grounder too")
        if self.grounder is not None and self.variant == "text_only":
            raise ConfigError("--variant text_only reads no pictures: a grounder finds nothing for it")
        if bool(QUANTISED.keys() & self.precision) != (self.calibration is not None):
            raise DataError(
                f"--precision {' or '.join(QUANTISED)} and --calibration DATA, the folder of the training data,"
                " go together"
            )


def run(options: Options) -> int:
    """Export, verify, write."""
    if options.grounder is not None:
        require_grounder(options.grounder, options.grounder_tokenizer)
    progress("loading PyTorch and the checkpoint")
    from hvpnet.modeling.grounding import load_grounder
    from hvpnet_export import export_bundle

    model, tokenizer = _load(options)
    calibration = _calibration(options, model.config)
    grounder = None
    if options.grounder is not None:
        progress("loading the grounder")
        grounder = load_grounder(options.grounder, options.grounder_tokenizer)
    reports = export_bundle(
        model,
        tokenizer,
        options.out,
        progress,
        precisions=options.precision,
        calibration=calibration,
        keep_going=options.keep_going,
        grounder=grounder,
        words=options.words(model.config.task),
    )
    config = model.config
    show(
        {
            "bundle": str(options.out),
            "task": config.task,
            "variant": config.variant,
            "labels": len(config.labels),
            "heads": config.bert.num_attention_heads,
            **({"grounder": grounder.kind} if grounder else {}),
            "parity": {
                precision: report.to_dict() if options.json else report.summary for precision, report in reports.items()
            },
        },
        as_json=options.json,
    )
    return 0


def _load(options: Options) -> "tuple[HVPNeT, Tokenizer]":
    """The model and its tokenizer."""
    from hvpnet.modeling.checkpoint import checkpoint_folder, load_checkpoint, read_bert_config
    from hvpnet.modeling.infer_config import Hints, read_labels
    from hvpnet.modeling.tokenizer import load_tokenizer

    folder = options.tokenizer or checkpoint_folder(options.checkpoint)
    if options.tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise ConfigError(
            f"no tokenizer lies in {folder}: give --tokenizer, the folder of the BERT that was trained on"
        )
    hints = Hints(
        task=options.task,
        variant=options.variant,
        labels=read_labels(options.labels) if options.labels else None,
        max_length=options.max_length,
        heads=options.heads,
        bert=read_bert_config(folder),
    )
    model = load_checkpoint(options.checkpoint, hints)
    return model, load_tokenizer(folder, model.config.task)


def _calibration(options: Options, config: "HVPNeTConfig") -> "CalibrationData | None":
    """Tweets of the training data, if they were given for INT8."""
    if options.calibration is None:
        return None
    from hvpnet.data import load_split
    from hvpnet.modeling.visual_prefix import PICTURES
    from hvpnet_export import CalibrationData

    pictures = PICTURES if config.pictures else None
    split = load_split(options.calibration, "train", options.on_bad_image, labels=config.labels, pictures=pictures)
    progress(f"calibrating on some of {split.summary}")
    return CalibrationData.choose(split, config)
