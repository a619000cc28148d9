"""Write a bundle: staged in a temporary sibling, verified there, and renamed, so that a crash leaves no half bundle."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from hvpnet.errors import HvpnetError
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.grounding import Grounder
from hvpnet.modeling.model import HVPNeT
from hvpnet_export.calibration import CalibrationData
from hvpnet_export.errors import ExportError, IncompleteError
from hvpnet_export.graphs import export_text, export_vision
from hvpnet_export.grounder import grounder_precisions, grounder_spec, write_grounder
from hvpnet_export.model_facts import manifest_of
from hvpnet_export.parity import ParityReport, compare
from hvpnet_export.parity_cases import example_cases
from hvpnet_export.precision import to_precision
from hvpnet_export.quantise import METHOD, quantise
from hvpnet_runtime.bundle import QUANTISED, GrounderSpec, Precision, file_digests, require_pictures
from hvpnet_runtime.bundle.staging import staged
from hvpnet_runtime.preprocessing.encode_text import MARKERS
from hvpnet_runtime.types import Progress


def export_bundle(
    model: HVPNeT,
    tokenizer: Tokenizer,
    out: Path,
    progress: Progress = lambda _: None,
    precisions: Sequence[Precision] = ("fp32",),
    calibration: CalibrationData | None = None,
    *,
    keep_going: bool = False,
    grounder: Grounder | None = None,
    words: Sequence[str] | None = None,
) -> dict[Precision, ParityReport]:
    """Export all graphs in every precision, verify them against the eager model, and write the bundle.

    Args:
        model: in evaluation mode.
        tokenizer: as `hvpnet.modeling.tokenizer.load_tokenizer` gives it.
        out: the bundle's folder; must not exist.
        progress: is told each step as it begins.
        precisions: see `hvpnet_export.precision` and `hvpnet_export.quantise`.
        calibration: tweets of the training data; INT8 needs them (`int8` and `int8_fp16`).
        keep_going: write the bundle also if graphs of a precision cannot be made or differ, with those that passed;
            those of the grounder are no such graphs.
        grounder: finds objects where none are given, in evaluation mode; in the bundle's precisions, for INT8 in
            those that it is made of.
        words: the grounder's fixed queries; None for queries made of each text.

    Returns:
        The parity reports of the model's graphs that the manifest holds.

    Raises:
        BundleError: there is a grounder, and the model reads no pictures.
        ExportError: `out` exists, the tokeniser is of another vocabulary, a weight does not fit the precision, INT8 has
            no calibration data, or the disk is full.
        ParityError: a graph does not answer as the eager model does.
        IncompleteError: with `keep_going`, that a precision is missing from the bundle, which is there.
    """
    if bool(QUANTISED.keys() & precisions) != (calibration is not None):
        raise ExportError(
            f"{' and '.join(QUANTISED)} need calibration data, the folder of the training data, and nothing else does"
        )
    _check_vocabulary(model.config, tokenizer)
    spec = None if grounder is None else _plan_grounder(model.config, grounder, words, precisions)
    with _staged(out) as stage:
        (stage / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")  # save() raises no OSError
        write_arrays(model, stage)
        reports, failures = _graphs(model, tokenizer, precisions, calibration, stage, progress, keep_going=keep_going)
        if grounder is not None and spec is not None:
            spec = replace(spec, precision=grounder_precisions(tuple(reports)))
            spec = write_grounder(stage, grounder, spec, progress)
        progress("writing the manifest")
        _write_manifest(stage, model.config, reports, calibration, spec)
    if failures:
        reasons = "; ".join(f"{precision}: {error}" for precision, error in failures.items())
        raise IncompleteError(f"{out} holds {', '.join(reports)}, but not {reasons}")
    return reports


def _plan_grounder(
    config: HVPNeTConfig, grounder: Grounder, words: Sequence[str] | None, precisions: Sequence[Precision]
) -> GrounderSpec:
    """What the manifest will say of a grounder; a model that reads no pictures has none."""
    require_pictures(manifest_of(config))
    return grounder_spec(grounder, words, 0.0, grounder_precisions(precisions))


def _write_manifest(
    stage: Path,
    config: HVPNeTConfig,
    reports: Mapping[Precision, ParityReport],
    calibration: CalibrationData | None,
    grounder: GrounderSpec | None,
) -> None:
    """Describe what lies in the folder: the last of its files."""
    manifest = replace(
        manifest_of(config),
        precision=tuple(reports),
        calibration=_calibration(calibration) if calibration and QUANTISED.keys() & reports else None,
        parity={name: report.to_dict() for name, report in reports.items()},
        files=file_digests(stage),
        grounder=grounder,
    )
    (stage / "manifest.json").write_text(manifest.to_json(), "utf-8")


def _graphs(
    model: HVPNeT,
    tokenizer: Tokenizer,
    precisions: Sequence[Precision],
    calibration: CalibrationData | None,
    stage: Path,
    progress: Progress,
    *,
    keep_going: bool,
) -> tuple[dict[Precision, ParityReport], dict[Precision, HvpnetError]]:
    """Write the graphs of every precision that passes, one at least; reports of those, and why the others do not."""
    reports: dict[Precision, ParityReport] = {}
    failures: dict[Precision, HvpnetError] = {}
    for precision in sorted(precisions, key=QUANTISED.__contains__):  # which are made of the others
        try:
            reports[precision] = _verified_graphs(model, tokenizer, precision, calibration, stage, progress)
        except HvpnetError as error:
            failures[precision] = error
            _give_up(precision, error, reports, keep_going=keep_going)
            shutil.rmtree(stage / "onnx" / precision, ignore_errors=True)
    if not reports:
        raise next(iter(failures.values()))
    return reports, failures


def _verified_graphs(
    model: HVPNeT,
    tokenizer: Tokenizer,
    precision: Precision,
    calibration: CalibrationData | None,
    stage: Path,
    progress: Progress,
) -> ParityReport:
    if precision in QUANTISED and calibration is not None:
        return _quantise_graphs(model, tokenizer, precision, calibration, stage, progress)
    _write_graphs(model, precision, stage, progress)
    progress(f"verifying the {precision} graphs against the eager model")
    return compare(model, stage, precision).require()


def _give_up(precision: Precision, error: HvpnetError, passed: Collection[Precision], *, keep_going: bool) -> None:
    """Raise the error, unless the bundle is to go on without this precision."""
    if keep_going:
        return
    if passed and isinstance(error, ExportError):
        cure = f"keep_going=True writes the bundle with {', '.join(passed)} alone"
        raise type(error)(f"{precision}: {error}: {cure}") from error
    raise error


def _calibration(data: CalibrationData) -> dict[str, object]:
    return {"method": METHOD, "tweets": len(data.calibration)}


@torch.no_grad()
def write_arrays(model: HVPNeT, folder: Path) -> None:
    """Write decoder.npz, the scores of the CRF, and blank.npz, the prefix of the blank picture, where they are read."""
    if model.config.task == "ner":
        scores = {name: parameter.float().numpy() for name, parameter in model.crf.named_parameters()}
        np.savez(folder / "decoder.npz", allow_pickle=False, **scores)
    if model.config.pictures:
        np.savez(folder / "blank.npz", allow_pickle=False, prefix=model.blank_prefix().numpy())


def _quantise_graphs(
    model: HVPNeT,
    tokenizer: Tokenizer,
    precision: Precision,
    data: CalibrationData,
    stage: Path,
    progress: Progress,
) -> ParityReport:
    """Quantise the graphs that this precision is made of, which stay only if they were asked for."""
    source = stage / "onnx" / QUANTISED[precision]
    with ExitStack() as stack:
        if not source.exists():
            stack.callback(shutil.rmtree, source, ignore_errors=True)  # a weight may not fit it
            _write_graphs(model, QUANTISED[precision], stage, progress)
        progress(f"quantising to {precision}, calibrated on {len(data.calibration)} tweets")
        tweets = example_cases(model.config, tokenizer, data.calibration, batch_size=4)
        quantise(model, source, stage / "onnx" / precision, list(tweets), precision)
    progress(f"verifying the {precision} graphs against the eager model on {len(data.verification)} other tweets")
    return compare(model, stage, precision, example_cases(model.config, tokenizer, data.verification)).require()


def _write_graphs(model: HVPNeT, precision: Precision, stage: Path, progress: Progress) -> None:
    converted, folder = to_precision(model, precision), stage / "onnx" / precision
    if model.config.pictures:
        progress(f"exporting the {precision} vision.onnx")
        export_vision(converted, folder / "vision.onnx", precision)
    progress(f"exporting the {precision} text.onnx")
    export_text(converted, folder / "text.onnx", precision)


def _check_vocabulary(config: HVPNeTConfig, tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size()
    if size != config.bert.vocab_size:
        raise ExportError(
            f"the tokeniser has {size} pieces, the checkpoint was trained with {config.bert.vocab_size}:"
            " give the folder of the BERT it was trained on"
        )
    if config.task == "re" and any(tokenizer.token_to_id(marker) is None for marker in MARKERS):
        raise ExportError(f"the tokeniser lacks the entity markers {' '.join(MARKERS)}")


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name at the end, or is removed."""
    if out.exists():
        raise ExportError(f"{out} exists: remove it or choose another, out=FOLDER")
    try:
        with staged(out) as stage:
            yield stage
    except OSError as error:
        raise ExportError(f"the bundle could not be written to {out}: {error}") from error
