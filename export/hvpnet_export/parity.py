"""Hold exported graphs against the eager model: on values and on decisions, over batch sizes, lengths and objects."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_export.errors import ParityError
from hvpnet_export.model_facts import manifest_of
from hvpnet_export.parity_cases import ParityCase, random_cases
from hvpnet_export.sessions import Sessions, read
from hvpnet_runtime.bundle import Bundle, GraphName, GraphSpec, Precision, graph_specs
from hvpnet_runtime.bundle.arrays import read_arrays

Array: TypeAlias = npt.NDArray[np.float32]

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "int8": 2.0, "int8_fp16": 2.0}
"""Largest |eager - graph|, relative to the eager value where that exceeds 1. FP16 of bert-base is off by 0.03. INT8
rounds too coarsely for values to say much: a trained model's decisions do."""

TIES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1, "int8": 0.0, "int8_fp16": 0.0}
"""Decisions that differ by no more than this margin count as equal."""

AGREEMENT: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.999, "int8": 0.95, "int8_fp16": 0.95}
"""Smallest share of decisions that must be equal, ties included. INT8 of a trained model keeps 99.7 %; of a random one,
whose decisions are close calls, 72 to 96 %, so that it may fail. `hvpnet evaluate` says what INT8 does to F1."""


@dataclass(frozen=True)
class Disagreement:
    """A decision that differs, with the eager model's margin: how much better its own decision scores there."""

    case: int
    row: int
    eager: list[int]
    graph: list[int]
    margin: float

    @property
    def count(self) -> int:
        """Tags that differ; 1 for a relation."""
        return sum(mine != theirs for mine, theirs in zip(self.eager, self.graph, strict=True))


@dataclass(frozen=True)
class ParityReport:
    """What was compared and how far apart it came out.

    Attributes:
        tolerance: the bound on both errors.
        ties: the margin up to which a decision that differs counts as equal.
        agreement: smallest share of decisions that must be equal.
        cases: requests compared.
        decisions: tags or relations compared.
        prefix_error: largest error of vision.onnx and blank.npz; 0 for text_only.
        output_error: largest error of emissions or logits, through both graphs.
        disagreements: every tweet on which a decision differs.
    """

    tolerance: float
    ties: float
    agreement: float
    cases: int
    decisions: int
    prefix_error: float
    output_error: float
    disagreements: tuple[Disagreement, ...]

    @property
    def passed(self) -> bool:
        """Values within the tolerance, and enough decisions equal."""
        close = all(error <= self.tolerance for error in (self.prefix_error, self.output_error))  # so not for NaN
        wrong = sum(found.count for found in self.disagreements if not found.margin <= self.ties)
        return close and wrong <= (1 - self.agreement) * self.decisions

    @property
    def differing(self) -> int:
        """Decisions that differ, ties included."""
        return sum(found.count for found in self.disagreements)

    @property
    def summary(self) -> str:
        """One line for people."""
        return (
            f"prefix within {self.prefix_error:.1e}, outputs within {self.output_error:.1e} of eager PyTorch,"
            f" {self.differing} of {self.decisions} decisions differ"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        return {"passed": self.passed, "differing": self.differing, **asdict(self)}

    def require(self) -> "ParityReport":
        """Return the report.

        Raises:
            ParityError: a value or a decision is off.
        """
        if not self.passed:
            raise ParityError(f"the graphs differ too much (tolerance {self.tolerance:.2g}): {self.summary}")
        return self


@torch.no_grad()
def compare(
    model: HVPNeT, bundle: Bundle | Path, precision: Precision = "fp32", cases: Iterable[ParityCase] | None = None
) -> ParityReport:
    """Run the eager model and the graphs of a bundle on the same inputs.

    Args:
        model: the eager model, in evaluation mode.
        bundle: a checked bundle, or a folder that is still to become one.
        precision: of the graphs; it sets what `ParityReport` asks of them.
        cases: by default `random_cases`.

    Raises:
        BundleError: a graph cannot be loaded, or is of another model, or blank.npz is.
        ParityError: a graph cannot be run, or answers in another shape.
        MissingExtraError: ONNX Runtime is not installed.
    """
    blank = model.blank_prefix() if model.config.pictures else torch.empty(0)
    graphs = _Graphs(bundle, graph_specs(manifest_of(model.config), precision), precision)
    prefix_error = output_error = 0.0
    if model.config.pictures:
        prefix_error = _error(blank.numpy(), graphs.blank.numpy())
    count, decisions, found = 0, 0, []
    for index, case in enumerate(random_cases(model) if cases is None else cases):
        eager_prefix, eager_output = _eager(model, blank, case)
        prefix, output = graphs(case)
        if eager_prefix is not None and prefix is not None and len(prefix):
            prefix_error = max(prefix_error, _error(eager_prefix.numpy(), prefix.float().numpy()))
        tokens = case.text["attention_mask"].bool()  # [B, T]
        # Padding has no meaningful emissions.
        compared = tokens if model.config.task == "ner" else torch.ones(len(tokens), dtype=torch.bool)
        output_error = max(output_error, _error(eager_output.numpy(), output.numpy(), compared.numpy()))
        count += 1
        decisions += int(compared.sum())
        found += disagreements(model, index, eager_output, output, tokens)
    bounds = TOLERANCES[precision], TIES[precision], AGREEMENT[precision]
    return ParityReport(*bounds, count, decisions, prefix_error, output_error, tuple(found))


def disagreements(model: HVPNeT, case: int, eager: Tensor, graph: Tensor, mask: Tensor) -> list[Disagreement]:
    """The rows of a batch on which a graph decides otherwise than the eager model.

    Args:
        model: the eager model.
        case: what the disagreements are to say of where they were found.
        eager: emissions [B, T, labels] or logits [B, relations] of the eager model.
        graph: those of the graph.
        mask: [B, T], 1 = token.
    """
    decisions = zip(model.decode(eager, mask), model.decode(graph, mask), strict=True)
    return [
        Disagreement(case, row, mine, theirs, _score(model, eager[row], mine) - _score(model, eager[row], theirs))
        for row, (mine, theirs) in enumerate(decisions)
        if mine != theirs
    ]


def compare_decoder(model: HVPNeT, bundle: Bundle) -> None:
    """Hold a bundle's decoder.npz against the CRF of the model.

    Raises:
        BundleError: it is damaged or of other labels.
        ParityError: a score differs.
    """
    scores = bundle.decoder_scores()
    for name, parameter in model.crf.named_parameters():
        if not np.array_equal(scores[name], parameter.detach().numpy()):
            raise ParityError(
                f"{bundle.path / 'decoder.npz'} has other {name} than the checkpoint: it is of another one"
            )


def _eager(model: HVPNeT, blank: Tensor, case: ParityCase) -> tuple[Tensor | None, Tensor]:
    """Prefixes and outputs of the eager model."""
    if case.pixels is None:
        return None, model(**case.text)
    prefixes = model.encode_pictures(normalise(case.pixels))  # [N, layers, 2, P * hidden]
    return prefixes, model(**case.text, prefix=case.gather(prefixes, blank))


class _Graphs:
    """Prefixes and outputs of a bundle's graphs, in ONNX Runtime on the CPU."""

    def __init__(self, bundle: Bundle | Path, specs: Mapping[GraphName, GraphSpec], precision: Precision) -> None:
        self._sessions = Sessions(bundle, specs, precision)
        if "vision" in specs:
            file = (bundle.path if isinstance(bundle, Bundle) else bundle) / "blank.npz"
            shapes = {"prefix": specs["vision"].output.shape({"pictures": 1})[1:]}
            self.blank = torch.from_numpy(read_arrays(read(bundle, file.name), file, shapes)["prefix"])

    def __call__(self, case: ParityCase) -> tuple[Tensor | None, Tensor]:
        feeds, prefixes = dict(case.text), None
        if case.pixels is not None:
            (prefixes,) = self._sessions.run("vision", images=case.pixels)
            feeds["prefix"] = case.gather(prefixes, self.blank.to(prefixes.dtype))
        (output,) = self._sessions.run("text", **feeds)
        return prefixes, output


def _error(eager: Array, graph: Array, compared: npt.NDArray[np.bool_] | None = None) -> float:
    """Largest absolute difference, relative where |eager| > 1; NaN counts as the largest float, as JSON has no NaN."""
    if eager.shape != graph.shape:
        raise ParityError(f"a graph answers with shape {list(graph.shape)}, the eager model with {list(eager.shape)}")
    error: Array = np.abs(eager - graph) / np.maximum(1, np.abs(eager))
    if compared is not None:
        error = error[compared]
    return float(np.nan_to_num(error, nan=float(np.finfo(np.float32).max)).max())


@torch.no_grad()
def _score(model: HVPNeT, outputs: Tensor, decision: list[int]) -> float:
    """The logit of a relation, or the CRF's log-likelihood of a path over emissions [T, labels]."""
    if model.config.task == "re":
        return float(outputs[decision[0]])
    return float(model.crf(outputs[None, : len(decision)], torch.tensor([decision])))
