"""The threshold of triples, chosen by the F1 of what it keeps on development data."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal

import numpy as np

from hvpnet.data.posts import PostExample
from hvpnet.errors import DataError
from hvpnet.evaluation.triples import check_names, edges, find_triples, gold_edges, triple_scores
from hvpnet_runtime.triples import TriplePipeline

SHARES = tuple(tenth / 10 for tenth in range(1, 11))
"""Shares of the wrong triples that a candidate drops; one more candidate drops none."""

_DIGITS = Context(prec=4, rounding=ROUND_FLOOR)


@dataclass(frozen=True)
class TripleThreshold:
    """A threshold, and the scores of the triples that it keeps.

    Attributes:
        threshold: triples with a smaller score are dropped.
        triples: kept, of all posts.
        precision: of whole triples end to end, in [0, 1].
        recall: likewise.
        f1: likewise.
    """

    threshold: float
    triples: int
    precision: float
    recall: float
    f1: float


def try_triple_thresholds(pipeline: TriplePipeline, posts: Sequence[PostExample]) -> list[TripleThreshold]:
    """Score what each of several thresholds keeps of the triples of posts, which are found once.

    A triple's score does not depend on the threshold, and the better direction of a pair is chosen before it: what a
    threshold keeps are the triples found without one whose scores reach it.

    Args:
        pipeline: without a threshold.
        posts: of the development split.

    Returns:
        Candidates by threshold, the smallest first.

    Raises:
        DataError: as `score_triples`; or no triple is found.
    """
    check_names(pipeline, posts)
    results, gold = find_triples(pipeline, posts), [gold_edges(post) for post in posts]
    found = [list(zip(edges(each), (triple.score for triple in each.triples), strict=True)) for each in results]
    if not any(found):
        raise DataError("no triples are found in the posts of this split: there is nothing to choose by")
    wrong = [score for row, right in zip(found, gold, strict=True) for edge, score in row if edge not in right]
    candidates = []
    for threshold in candidate_thresholds(wrong):
        kept = [[edge for edge, score in row if score >= threshold] for row in found]
        scores = triple_scores(gold, kept)
        candidates.append(TripleThreshold(threshold, sum(map(len, kept)), scores.precision, scores.recall, scores.f1))
    return candidates


def candidate_thresholds(wrong: Sequence[float]) -> list[float]:
    """Zero and what is just above deciles of the scores of wrong triples: the distance from 1 has four digits."""
    if not wrong:
        return [0.0]
    deciles = np.quantile(np.array(wrong, np.float64), SHARES, method="inverted_cdf")
    left = (1 - Decimal(float(np.nextafter(each, np.inf))) for each in deciles)  # to 1
    return sorted({0.0, *(float(1 - max(Decimal(0), _DIGITS.create_decimal(each))) for each in left)})
