"""What a backend costs in F1: every candidate scored on the same tweets, and held against eager FP32 tag by tag."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.eager import EagerBackend
from hvpnet.data import Split
from hvpnet.evaluation.scoring import Scores, score_pipeline
from hvpnet_export.parity import disagreements
from hvpnet_runtime.backends import Backend, Prefix, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.pipeline import CACHE_BYTES, Pipeline
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.types import Progress


@dataclass(frozen=True)
class Accuracy:
    """How one candidate does on a split: `scores` as `hvpnet evaluate` gives them, `change` of F1 from eager FP32's.

    `differing` of the `decisions` (tags of tokens, or relations) are not eager FP32's. `margins` say for each tweet
    with such a decision how much better eager FP32 scores its own (`hvpnet_export.parity.Disagreement`), largest first.
    """

    candidate: Candidate
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
    bundle: Bundle, checkpoint: Path, split: Split, candidates: Sequence[Candidate], progress: Progress
) -> Iterator[Accuracy]:
    """Score the candidates one by one, the baseline first, whether it is among them or not.

    All take the runtime's way from pictures to pixels and from emissions to tags, which is tested to be the published
    one to the bit: what differs is the backend's. Raises DataError if the split is not one for this bundle, and
    HvpnetError if a candidate does not run here.
    """
    for candidate in dict.fromkeys((BASELINE, *candidates)):
        progress(f"scoring {candidate.name} on {len(split.examples)} tweets")
        with _load(bundle, checkpoint, candidate) as pipeline:
            runs = _record_texts(pipeline.backend)
            scores = score_pipeline(pipeline, split)
        if candidate == BASELINE:
            model, reference, f1 = cast("EagerBackend", pipeline.backend).model, runs, scores.f1
        decisions = sum(int(mask.sum()) if outputs.dim() == 3 else len(outputs) for outputs, mask in runs)
        different = [
            each
            for batch, ((mine, mask), (theirs, _)) in enumerate(zip(reference, runs, strict=True))
            for each in disagreements(model, batch, mine, theirs, mask)
        ]
        margins = tuple(sorted((each.margin for each in different), reverse=True))
        differing = sum(each.count for each in different)
        yield Accuracy(candidate, scores, scores.f1 - f1, decisions, differing, margins)


def _load(bundle: Bundle, checkpoint: Path, candidate: Candidate) -> Pipeline:
    if not candidate.is_pytorch:
        return Pipeline.load(bundle.path, candidate.backend, precision=candidate.precision, objects="given")
    backend = EagerBackend.load(candidate, bundle.manifest, checkpoint)
    return Pipeline(bundle, backend, Preparer(bundle), PrefixCache(CACHE_BYTES))


def _record_texts(backend: Backend) -> list[tuple[Tensor, Tensor]]:
    """Outputs and mask [B, T] of every batch of texts that the backend runs from now on, the same of all backends."""
    runs, encode_text = list[tuple[Tensor, Tensor]](), backend.encode_text
    backend.run_tokens = None

    def record(text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        outputs = encode_text(text, prefixes)
        runs.append((torch.from_numpy(outputs.copy()), torch.from_numpy(text.attention_mask).bool()))
        return outputs

    backend.encode_text = record  # type: ignore[method-assign]
    return runs
