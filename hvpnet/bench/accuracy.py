"""What an engine costs in F1: every variant scored on the same tweets, and held against eager FP32 tag by tag."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hvpnet.bench.eager import EagerBackend
from hvpnet.bench.runtime import load_pipeline
from hvpnet.bench.variants import BASELINE, Variant
from hvpnet.data import Split
from hvpnet.evaluation.scoring import Scores, score_pipeline
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.infer_config import Hints
from hvpnet.modeling.model import HVPNeT
from hvpnet_export.parity import Disagreement, disagreements
from hvpnet_runtime.backends import Backend, Prefix, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.pipeline import CACHE_BYTES, Pipeline
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.prepare import Preparer


@dataclass(frozen=True)
class Accuracy:
    """How one variant does on a split.

    Attributes:
        variant: which.
        scores: as `hvpnet evaluate` gives them.
        decisions: token tags, or relations.
        differing: those that are not eager FP32's.
        margins: of every tweet with such a decision, how much better eager FP32 scores its own; see
            `hvpnet_export.parity.Disagreement`. Largest first.
    """

    variant: Variant
    scores: Scores
    decisions: int
    differing: int
    margins: tuple[float, ...]

    @property
    def agreement(self) -> float:
        """The share of equal decisions."""
        return 1 - self.differing / self.decisions


def assess(
    bundle: Bundle, checkpoint: Path, split: Split, variants: Sequence[Variant], progress: Callable[[str], None]
) -> list[Accuracy]:
    """Score the variants, the baseline first, whether it is among them or not.

    All take the runtime's way from pictures to pixels and from emissions to tags, which is tested to be the published
    one to the bit: what differs is the engine's.

    Raises:
        DataError: the split is not one for this bundle.
        HvpnetError: a variant does not run here.
    """
    baseline = EagerBackend(load_checkpoint(checkpoint, Hints.of_bundle(bundle.manifest)))
    reference = _Recorder(baseline)
    progress(f"scoring {BASELINE.name} on {len(split.examples)} tweets")
    scores = score_pipeline(_pipeline(bundle, reference), split)
    found = [Accuracy(BASELINE, scores, reference.decisions, 0, ())]
    for variant in variants:
        if variant != BASELINE:
            progress(f"scoring {variant.name}")
            recorder, scores = _score(bundle, checkpoint, split, variant)
            found.append(_compare(baseline.model, variant, scores, reference, recorder))
    return found


def _score(bundle: Bundle, checkpoint: Path, split: Split, variant: Variant) -> tuple["_Recorder", Scores]:
    if variant.is_pytorch:
        model = load_checkpoint(checkpoint, Hints.of_bundle(bundle.manifest))
        recorder = _Recorder(EagerBackend(model, variant.precision))
        return recorder, score_pipeline(_pipeline(bundle, recorder), split)
    with load_pipeline(Pipeline, bundle.path, variant.engine, variant.precision) as pipeline:
        pipeline.backend = recorder = _Recorder(pipeline.backend)
        return recorder, score_pipeline(pipeline, split)


def _pipeline(bundle: Bundle, backend: Backend) -> Pipeline:
    return Pipeline(bundle, backend, Preparer.of(bundle), PrefixCache(CACHE_BYTES))


def _compare(
    model: HVPNeT, variant: Variant, scores: Scores, reference: "_Recorder", recorder: "_Recorder"
) -> Accuracy:
    different: list[Disagreement] = []
    for run, (mine, theirs) in enumerate(zip(reference.runs, recorder.runs, strict=True)):
        different += disagreements(model, run, mine.outputs, theirs.outputs, mine.mask)
    margins = sorted((found.margin for found in different), reverse=True)
    differing = sum(found.count for found in different)
    return Accuracy(variant, scores, reference.decisions, differing, tuple(margins))


@dataclass(frozen=True)
class _Run:
    """What a text network answered to a batch: emissions [B, T, labels] or logits [B, relations], and its mask."""

    outputs: Tensor
    mask: Tensor


class _Recorder:
    """A backend that remembers what its text network answered; see `Backend`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.precision, self.close = backend.name, backend.precision, backend.close
        self.max_length = backend.max_length
        self.runs: list[_Run] = []

    @property
    def decisions(self) -> int:
        return sum(int(run.mask.sum()) if run.outputs.dim() == 3 else len(run.outputs) for run in self.runs)

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        return self._backend.encode_pictures(images)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        outputs = self._backend.encode_text(text, prefixes)
        self.runs.append(_Run(torch.from_numpy(outputs.copy()), torch.from_numpy(text.attention_mask).bool()))
        return outputs
