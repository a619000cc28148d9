"""Write a bundle: staged in a temporary sibling, verified there, and renamed, so that a crash leaves no half bundle."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from hvpnet.modeling.config import MAX_OBJECTS, HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import SPEC
from hvpnet.modeling.tokenizer import MARKERS
from hvpnet_export.calibration import CalibrationData
from hvpnet_export.errors import ExportError
from hvpnet_export.graphs import export_text, export_vision
from hvpnet_export.parity import ParityReport, Precision, compare
from hvpnet_export.parity_cases import example_requests
from hvpnet_export.precision import to_precision
from hvpnet_export.quantise import METHOD, quantise

SCHEMA_VERSION = 1

Progress = Callable[[str], None]


def export_bundle(
    model: HVPNeT,
    tokenizer: Tokenizer,
    out: Path,
    progress: Progress = lambda _: None,
    precisions: Sequence[Precision] = ("fp32",),
    calibration: CalibrationData | None = None,
) -> dict[Precision, ParityReport]:
    """Export both graphs in every precision, verify them against the eager model, and write the bundle.

    Args:
        model: in evaluation mode.
        tokenizer: as `hvpnet.modeling.tokenizer.load_tokenizer` gives it.
        out: the bundle's folder; must not exist.
        progress: is told each step as it begins.
        precisions: see `hvpnet_export.precision` and `hvpnet_export.quantise`.
        calibration: tweets of the training data; INT8 needs them.

    Returns:
        The parity reports that the manifest holds.

    Raises:
        ExportError: `out` exists, the tokeniser is of another vocabulary, a weight does not fit the precision, INT8 has
            no calibration data, or the disk is full.
        ParityError: a graph does not answer as the eager model does.
    """
    _check_vocabulary(model.config, tokenizer)
    if ("int8" in precisions) != (calibration is not None):
        raise ExportError("int8 needs calibration data, the folder of the training data, and nothing else does")
    with _staged(out) as stage:
        (stage / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")  # save() raises no OSError
        if model.config.task == "ner":
            _write_decoder(model, stage / "decoder.npz")
        reports: dict[Precision, ParityReport] = {
            name: _export_graphs(model, name, stage / "onnx" / name, progress) for name in precisions if name != "int8"
        }
        if calibration is not None:
            reports["int8"] = _quantise_graphs(model, tokenizer, calibration, stage / "onnx", progress)
        progress("writing the manifest")
        manifest = _manifest(model.config, reports, calibration) | {"files": _digests(stage)}
        (stage / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return reports


def _export_graphs(model: HVPNeT, precision: Precision, folder: Path, progress: Progress) -> ParityReport:
    _write_graphs(model, precision, folder, progress)
    progress(f"verifying the {precision} graphs against the eager model")
    return compare(model, folder, precision).require()


def _quantise_graphs(
    model: HVPNeT, tokenizer: Tokenizer, data: CalibrationData, onnx: Path, progress: Progress
) -> ParityReport:
    """From the FP32 graphs, which stay only if they were asked for."""
    source, target = onnx / "fp32", onnx / "int8"
    with ExitStack() as stack:
        if not source.exists():
            stack.callback(shutil.rmtree, source)
            _write_graphs(model, "fp32", source, progress)
        progress(f"quantising to int8, calibrated on {len(data.calibration)} tweets")
        tweets = example_requests(model.config, tokenizer, data.calibration, batch_size=4)
        quantise(model, source, target, list(tweets))
    progress(f"verifying the int8 graphs against the eager model on {len(data.verification)} other tweets")
    return compare(model, target, "int8", example_requests(model.config, tokenizer, data.verification)).require()


def _write_graphs(model: HVPNeT, precision: Precision, folder: Path, progress: Progress) -> None:
    converted = to_precision(model, precision)
    if model.config.pictures:
        progress(f"exporting the {precision} vision.onnx")
        export_vision(converted, folder / "vision.onnx")
    progress(f"exporting the {precision} text.onnx")
    export_text(converted, folder / "text.onnx")


def _check_vocabulary(config: HVPNeTConfig, tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    if size != config.bert.vocab_size:
        raise ExportError(
            f"the tokeniser has {size} pieces, the checkpoint was trained with {config.bert.vocab_size}:"
            " give the folder of the BERT it was trained on"
        )
    if config.task == "re" and any(tokenizer.token_to_id(marker) is None for marker in MARKERS):
        raise ExportError(f"the tokeniser lacks the entity markers {' '.join(MARKERS)}")


def _write_decoder(model: HVPNeT, path: Path) -> None:
    names = ("start_transitions", "end_transitions", "transitions")
    arrays = {name: getattr(model.crf, name).detach().float().numpy() for name in names}
    np.savez(path, allow_pickle=False, **arrays)


def _manifest(
    config: HVPNeTConfig, reports: Mapping[Precision, ParityReport], calibration: CalibrationData | None
) -> dict[str, Any]:
    bert, preprocessing = config.bert, asdict(SPEC)
    max_pixels = preprocessing.pop("max_pixels")
    return {
        "schema_version": SCHEMA_VERSION,
        "task": config.task,
        "variant": config.variant,
        "head": config.head if config.task == "re" else None,
        "labels": list(config.labels),
        "sizes": {
            "hidden": bert.hidden_size,
            "layers": bert.num_hidden_layers,
            "heads": bert.num_attention_heads,
            "vocabulary": bert.vocab_size,
            "prefix_length": config.prefix_length,
            "pictures": config.pictures,
        },
        "architecture": {"bert": asdict(bert), "resnet": asdict(config.resnet) if config.resnet else None},
        "preprocessing": preprocessing,
        "precision": list(reports),
        "calibration": None if calibration is None else {"method": METHOD, "tweets": len(calibration.calibration)},
        "limits": {"max_length": config.max_length, "max_objects": MAX_OBJECTS, "max_pixels": max_pixels},
        "produced_by": {name: version(name) for name in ("hvpnet", "torch", "transformers", "onnx", "onnxscript")},
        "parity": {name: report.to_dict() for name, report in reports.items()},
    }


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        digests[path.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    return digests


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name at the end, or is removed."""
    if out.exists():
        raise ExportError(f"{out} exists: remove it or choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise ExportError(f"cannot write beside {out}: {error}") from error
    try:
        yield stage
        stage.chmod(0o755)  # mkdtemp makes it private
        for path in stage.rglob("*"):
            if path.is_file():
                _flush(path)
        stage.rename(out)
    except OSError as error:
        raise ExportError(f"the bundle could not be written to {out}: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)  # a renamed stage is no longer there


def _flush(path: Path) -> None:
    """On the disk before the name is: a power cut must not leave a bundle of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
