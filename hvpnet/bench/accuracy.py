"""What a backend costs in F1: every variant scored on the same tweets, and held against eager FP32 tag by tag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hvpnet.bench.eager import load_backend
from hvpnet.bench.subjects import BASELINE, Variant
from hvpnet.data import Split
from hvpnet.evaluation.scoring import Scores, score_pipeline
from hvpnet_export.parity import disagreements
from hvpnet_runtime.backends import Backend, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.pipeline import CACHE_BYTES, Pipeline
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.types import Progress


@dataclass(frozen=True)
class Accuracy:
    """How one variant does on a split: `scores` as `hvpnet evaluate` gives them, `change` of F1 from eager FP32's.

    Of the `decisions`, tags of tokens or relations, `differing` are not eager FP32's. `margins` say for each tweet with
    such a decision how much better eager FP32 scores its own (`hvpnet_export.parity.Disagreement`), largest first.
    """

    variant: Variant
    scores: Scores
    change: float
    decisions: int
    differing: int
    margins: tuple[float, ...]

    @property
    def agreement(self) -> float:
        """The share of equal decisions."""
        return 1 - self.differing / self.decisions

    @property
    def margin(self) -> float:
        """The largest, or 0."""
        return max(self.margins, default=0)


def assess(
    bundle: Bundle, checkpoint: Path, split: Split, variants: Sequence[Variant], progress: Progress
) -> list[Accuracy]:
    """Score the variants, the baseline first, whether it is among them or not.

    All take the runtime's way from pictures to pixels and from emissions to tags, which is tested to be the published
    one to the bit: what differs is the backend's. Raises DataError if the split is not one for this bundle, and
    HvpnetError if a variant does not run here.
    """
    reference, found = None, list[Accuracy]()
    for variant in dict.fromkeys((BASELINE, *variants)):
        progress(f"scoring {variant.name} on {len(split.examples)} tweets")
        with _load(bundle, checkpoint, variant) as pipeline:
            recorder = _Recorder(pipeline.backend)
            pipeline.backend = cast("Backend", recorder)
            scores = score_pipeline(pipeline, split)
        reference = reference or recorder
        change = scores.f1 - (found[0].scores.f1 if found else scores.f1)
        decisions = sum(int(mask.sum()) if outputs.dim() == 3 else len(outputs) for outputs, mask in recorder.runs)
        different = [
            each
            for batch, ((mine, mask), (theirs, _)) in enumerate(zip(reference.runs, recorder.runs, strict=True))
            for each in disagreements(reference.model, batch, mine, theirs, mask)
        ]
        margins = tuple(sorted((each.margin for each in different), reverse=True))
        found.append(Accuracy(variant, scores, change, decisions, sum(each.count for each in different), margins))
    return found


def _load(bundle: Bundle, checkpoint: Path, variant: Variant) -> Pipeline:
    if not variant.is_pytorch:
        return Pipeline.load(bundle.path, variant.backend, precision=variant.precision)
    backend = load_backend(variant, bundle.manifest, checkpoint)
    return Pipeline(bundle, backend, Preparer.of(bundle), PrefixCache(CACHE_BYTES))


class _Recorder:
    """A backend that remembers what its text network answered to every batch, and the mask [B, T]."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self.runs = backend, list[tuple[Tensor, Tensor]]()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the backend has
        return getattr(self._backend, name)

    def encode_text(self, text: TextInputs, prefixes: Any) -> Any:  # noqa: ANN401  as `Backend` has them
        outputs = self._backend.encode_text(text, prefixes)
        self.runs.append((torch.from_numpy(outputs.copy()), torch.from_numpy(text.attention_mask).bool()))
        return outputs
