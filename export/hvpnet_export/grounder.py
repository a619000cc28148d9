"""A bundle's grounder: its two ONNX graphs, fixed queries or a tokeniser, and what the manifest says of it.

The graphs are those of any `Grounder`, exported as the model's own are (see `hvpnet_export.graphs`). In FP16 weights of
convolutions, linear layers and embeddings are narrow; norms, softmaxes and boxes are of FP32, which the grounders
themselves see to.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from hvpnet.modeling.grounding import Grounder
from hvpnet_export.errors import ExportError, ParityError
from hvpnet_export.graphs import fold_batch_norm, write_graph
from hvpnet_export.grounding_parity import GroundingReport, compare_grounder
from hvpnet_export.precision import check_fits, narrow_layers
from hvpnet_export.sessions import Sessions, read
from hvpnet_runtime.bundle import (
    FIXED_QUERIES,
    QUANTISED,
    QUERY_TOKENIZER,
    Bundle,
    FileDigest,
    GrounderSpec,
    Precision,
    grounder_specs,
    require_pictures,
    sha256,
)
from hvpnet_runtime.bundle.arrays import read_arrays
from hvpnet_runtime.bundle.grounder_spec import check_grounder
from hvpnet_runtime.bundle.staging import link_files, staged
from hvpnet_runtime.types import Progress

ENTITY_TYPES = ("person", "organization", "location", "miscellaneous")
"""Fixed queries of entities: the names of the published types, which UMGF asked the published grounder for."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""Precisions of a grounder's graphs."""


FIXED = 1e-4
"""Largest error of a fixed query's vector, whose length is 1: another machine may round otherwise."""


class QueriesGraph(nn.Module):
    """The graph that makes vectors of queries: `encode_queries` of a grounder."""

    def __init__(self, grounder: Grounder) -> None:
        super().__init__()
        self.grounder = grounder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Int64 [Q, L] twice -> float32 [Q, D]."""
        return self.grounder.encode_queries(input_ids, attention_mask)


def add_grounder(
    bundle: Path,
    grounder: Grounder,
    words: Sequence[str] | None,
    threshold: float = 0.0,
    precisions: Sequence[Precision] | None = None,
    progress: Progress = lambda _: None,
) -> GrounderSpec:
    """Give a bundle a grounder, in place of the one that it has, if any.

    The bundle is written anew beside its place, which it takes at the end, as `staged` does. Its other files, engines
    among them, are kept, and none of them is written to. Engines that include a grounder become stale with another one,
    and those of the model alone do not.

    Args:
        bundle: its folder.
        grounder: in evaluation mode.
        words: the fixed queries; None for queries made of each text.
        threshold: objects with a smaller score are dropped.
        precisions: of the grounder's graphs, by default those of the bundle, for INT8 those that it is made of.
        progress: is told each step as it begins.

    Returns:
        What the manifest says of the grounder.

    Raises:
        BundleError: the folder holds no bundle, a file was changed that is not the old grounder's, or the model reads
            no pictures.
        ExportError: the words or the threshold cannot be used, a weight does not fit the precision, or the disk is
            full. The bundle is as it was.
        ParityError: a graph does not answer as the eager model does; likewise.
    """
    folder = bundle.resolve()
    manifest = Bundle.load(folder, grounder=False).manifest
    require_pictures(manifest)
    chosen = grounder_precisions(manifest.precision) if precisions is None else precisions
    spec = grounder_spec(grounder, words, threshold, chosen)
    try:
        with staged(folder, replace=True) as stage:
            old = manifest.grounder.required_files() if manifest.grounder else ()
            link_files(folder, stage, {"manifest.json", *old, *spec.required_files()})
            spec = write_grounder(stage, grounder, spec, progress)
            progress("writing the manifest")
            files = {name: facts for name, facts in manifest.files.items() if name not in old}
            files |= {name: _digest(stage / name) for name in spec.required_files()}
            (stage / "manifest.json").write_text(replace(manifest, grounder=spec, files=files).to_json(), "utf-8")
    except OSError as error:
        raise ExportError(f"the grounder could not be written to {bundle}: {error}") from error
    return spec


def grounder_precisions(precisions: Sequence[Precision]) -> tuple[Precision, ...]:
    """Precisions of a grounder beside graphs of these: the same, or for INT8 that of the graphs it is made of."""
    wanted = {QUANTISED.get(each, each) for each in precisions}
    return tuple(each for each in PRECISIONS if each in wanted)


def grounder_spec(
    grounder: Grounder, words: Sequence[str] | None, threshold: float, precisions: Sequence[Precision]
) -> GrounderSpec:
    """What the manifest is to say of a grounder, but for its parity; arguments as of `add_grounder`.

    Raises:
        ExportError: a value cannot be used.
    """
    spec = GrounderSpec(
        kind=grounder.kind,
        size=grounder.size,
        query_size=grounder.query_size,
        max_length=grounder.max_length,
        queries="text" if words is None else "fixed",
        words=tuple(words or ()),
        threshold=threshold,
        precision=tuple(precisions),
    )
    try:
        check_grounder(spec)
    except ValueError as error:
        raise ExportError(f"the grounder cannot be used so: {error}") from error
    return spec


def write_grounder(folder: Path, grounder: Grounder, spec: GrounderSpec, progress: Progress) -> GrounderSpec:
    """Write a grounder's files into a folder that is to become a bundle.

    Args:
        folder: of the bundle to be.
        grounder: in evaluation mode.
        spec: as `grounder_spec` gives it.
        progress: is told each step as it begins.

    Returns:
        The spec with its parity reports.

    Raises:
        ExportError: a weight does not fit the precision, or the exporter failed.
        ParityError: a graph does not answer as the eager model does.
    """
    if spec.queries == "text":
        (folder / QUERY_TOKENIZER).write_text(grounder.tokenizer.to_str(pretty=True), "utf-8")
    else:
        np.savez(folder / FIXED_QUERIES, allow_pickle=False, queries=grounder.encode(spec.words).numpy())
    folded = fold_batch_norm(copy.deepcopy(grounder))
    parity: dict[str, dict[str, Any]] = {}
    for precision in spec.precision:
        _write_graphs(to_grounder_precision(folded, precision), spec, folder / "onnx" / precision, precision, progress)
        progress(f"verifying the {precision} grounder against the eager model")
        report = compare_graphs(grounder, folder, spec, precision).require()
        parity[precision] = {"summary": report.summary, **report.to_dict()}
    return replace(spec, parity=parity)


def to_grounder_precision(folded: Grounder, precision: Precision) -> Grounder:
    """A copy with narrow weights for `fp16`, or else the grounder itself.

    Args:
        folded: a grounder without batch norms.
        precision: `fp32` or `fp16`.

    Raises:
        ExportError: a weight does not fit FP16.
    """
    if precision != "fp16":
        return folded
    narrow = copy.deepcopy(folded)
    narrow_layers(narrow)
    check_fits(narrow)
    return narrow


def compare_graphs(
    grounder: Grounder, bundle: Bundle | Path, spec: GrounderSpec, precision: Precision
) -> GroundingReport:
    """Hold the grounder's graphs, and the vectors of its fixed queries, against the eager model.

    Args:
        grounder: the eager model, in evaluation mode.
        bundle: a checked bundle, or a folder that is still to become one.
        spec: what the bundle says of its grounder, or is to say.
        precision: of the graphs.

    Raises:
        BundleError: a graph cannot be loaded, or is of another grounder.
        ParityError: a graph cannot be run, or answers in another shape, or fixed queries have other vectors.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if spec.queries == "fixed":
        _compare_fixed(grounder, bundle, spec)
    graphs = Sessions(bundle, grounder_specs(spec), precision)

    def ground(images: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = graphs.run("grounder", images=images, queries=queries)
        return boxes, scores

    def encode(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        (queries,) = graphs.run("queries", input_ids=input_ids, attention_mask=attention_mask)
        return queries

    return compare_grounder(grounder, ground, encode if spec.queries == "text" else None, precision)


def _compare_fixed(grounder: Grounder, bundle: Bundle | Path, spec: GrounderSpec) -> None:
    file = (bundle.path if isinstance(bundle, Bundle) else bundle) / FIXED_QUERIES
    shapes = {"queries": (len(spec.words), spec.query_size)}
    found = read_arrays(read(bundle, FIXED_QUERIES), file, shapes)["queries"]
    error = np.abs(found - grounder.encode(spec.words).numpy()).max()
    if not error <= FIXED:
        raise ParityError(f"{file} has vectors of other queries, or of another grounder: they are {error:.2g} apart")


def _write_graphs(
    grounder: Grounder, spec: GrounderSpec, folder: Path, precision: Precision, progress: Progress
) -> None:
    for name, graph in grounder_specs(spec).items():
        progress(f"exporting the {precision} {name}.onnx")
        module = grounder if name == "grounder" else QueriesGraph(grounder)
        write_graph(module, graph, folder / f"{name}.onnx", longest=spec.max_length)


def _digest(file: Path) -> FileDigest:
    return FileDigest(sha256(file), file.stat().st_size)
