"""The threshold of a grounder, chosen by what the found objects are worth on development data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_FLOOR, Context
from typing import Protocol, TypeVar

import numpy as np

from hvpnet.data.examples import Split
from hvpnet.data.found_objects import Found, find_objects, read_searchable
from hvpnet.data.published import SplitFiles
from hvpnet.errors import DataError
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet_runtime.bundle.grounder_spec import check_grounder
from hvpnet_runtime.bundle.manifest import Manifest
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.pictures import OnBadImage
from hvpnet_runtime.types import Progress

QUANTILES = tuple(tenth / 10 for tenth in range(10))
"""Shares of the found objects that a candidate drops; the first drops none."""

_DIGITS = Context(prec=4, rounding=ROUND_FLOOR)


class _Scored(Protocol):
    """What is chosen by its F1."""

    @property
    def threshold(self) -> float: ...

    @property
    def f1(self) -> float: ...


Scored = TypeVar("Scored", bound=_Scored)


@dataclass(frozen=True)
class Candidate:
    """A threshold, and the scores with the objects that it keeps.

    Attributes:
        threshold: objects with a smaller score are dropped.
        objects: kept, of all tweets.
        precision: of entities or relations, in [0, 1].
        recall: likewise.
        f1: likewise.
    """

    threshold: float
    objects: int
    precision: float
    recall: float
    f1: float


def try_thresholds(
    pipeline: Pipeline,
    files: SplitFiles,
    on_bad_image: OnBadImage = "error",
    progress: Progress = lambda _: None,
    told: Callable[[int, int], None] = lambda *_: None,
) -> list[Candidate]:
    """Score a pipeline with the objects that each of several thresholds keeps.

    Objects are searched for once, without a threshold. Selection looks at boxes from the best score down, and stops at
    the threshold: what it keeps are the objects selected without one whose scores reach it.

    Args:
        pipeline: of a bundle with a grounder, loaded without `objects`. Its finder has no threshold afterwards.
        files: of the development split.
        on_bad_image: as of `load_split`.
        progress: is told each step as it begins.
        told: is told how many tweets were searched, and how many there are.

    Returns:
        Candidates by threshold, the smallest first.

    Raises:
        DataError: the split cannot be read or scored, or nothing is found in it.
        BackendError: the grounder or the model failed.
        MissingExtraError: seqeval, which scores entities, is not installed.
    """
    if pipeline.finder is None:
        raise DataError("the pipeline finds no objects: load it without objects")
    split = read_searchable(files, pipeline, on_bad_image)
    pipeline.finder.threshold = 0.0
    progress(f"finding objects for {len(split.examples)} tweets")
    found: list[Found] = []
    for each in find_objects(pipeline, files, split.examples):
        found.append(each)
        told(len(found), len(split.examples))
    candidates = []
    for threshold in thresholds([each.score for row in found for each in row]):
        progress(f"scoring threshold {threshold:g}")
        kept = [tuple(each for each in row if each.score >= threshold) for row in found]
        scores = score_pipeline(pipeline, _with_boxes(split, kept))
        count = sum(map(len, kept))
        candidates.append(Candidate(threshold, count, scores.precision, scores.recall, scores.f1))
    if not candidates:
        raise DataError(f"the grounder finds no objects in the pictures of {files.text}: there is nothing to choose by")
    return candidates


def thresholds(scores: Sequence[float]) -> list[float]:
    """Zero and deciles of the scores, rounded down to four digits; none if there are no scores."""
    if not scores:
        return []
    deciles = np.quantile(np.array(scores, np.float64), QUANTILES[1:], method="higher")
    return sorted({0.0, *(float(_DIGITS.create_decimal_from_float(float(each))) for each in deciles)})


def best(candidates: Sequence[Scored]) -> Scored:
    """The one with the highest F1; of several, the one with the smallest threshold."""
    return max(candidates, key=lambda each: (each.f1, -each.threshold))


def with_threshold(manifest: Manifest, threshold: float) -> Manifest:
    """A bundle's manifest with another threshold of its grounder.

    Raises:
        DataError: it has no grounder.
        ValueError: scores cannot be compared with this threshold.
    """
    if manifest.grounder is None:
        raise DataError("the bundle has no grounder, so it has no threshold")
    grounder = replace(manifest.grounder, threshold=threshold)
    check_grounder(grounder)
    return replace(manifest, grounder=grounder)


def _with_boxes(split: Split, objects: Sequence[Found]) -> Split:
    examples = tuple(
        replace(example, tweet=replace(example.tweet, boxes=tuple(each.box for each in found)))
        for example, found in zip(split.examples, objects, strict=True)
    )
    return replace(split, examples=examples)
