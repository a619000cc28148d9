"""Scores of triples, counted by hand, on answers that a pipeline of our own gives."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvpnet.data import PostExample, RelationExample
from hvpnet.errors import DataError
from hvpnet.evaluation.metrics import F1
from hvpnet.evaluation.threshold import best
from hvpnet.evaluation.triple_threshold import TripleThreshold, candidate_thresholds, try_triple_thresholds
from hvpnet.evaluation.triples import PairScores, TripleScores, score_pairs, score_triples, triple_scores
from hvpnet_runtime import Entity, Rejection, Triple, TriplePipeline, TripleResult, Tweet

MEMBER, COUPLE = "/per/org/member_of", "/per/per/couple"
PER, ORG, LATE = ("PER", 0, 1), ("ORG", 3, 3), ("PER", 5, 5)


def entity(kind: str, first: int, last: int) -> Entity:
    return Entity("x", kind, 0, 1, first, last, 0.5)


def test_by_hand() -> None:
    gold = [[(PER, MEMBER, ORG), (PER, COUPLE, LATE)], [], [(PER, MEMBER, ORG)]]
    predicted = [
        [(PER, MEMBER, ORG), (LATE, COUPLE, PER), (LATE, MEMBER, ORG)],  # right, wrong way round, wrong head
        [(PER, MEMBER, ORG)],  # another post's
        [(("PER", 1, 1), MEMBER, ORG)],  # half of the head
    ]
    assert triple_scores(gold, predicted) == TripleScores(
        precision=1 / 5,
        recall=1 / 3,
        f1=2 * (1 / 5) * (1 / 3) / (1 / 5 + 1 / 3),
        per_relation={MEMBER: F1(1 / 4, 1 / 2, 1 / 3), COUPLE: F1(0, 0, 0)},
    )
    assert triple_scores([[(PER, COUPLE, ("ORG", 5, 5))]], [[(PER, COUPLE, LATE)]]).f1 == 0  # type of the tail
    assert triple_scores([[]], [[]]) == TripleScores(0, 0, 0, {})
    with pytest.raises(ValueError, match=r"gold \(1 posts\) and predicted \(2\)"):
        triple_scores([[]], [[], []])


class Told:
    """A pipeline that gives the answers it was told: by post end to end, and the first pair as a couple if asked so."""

    def __init__(self, *triples: Sequence[tuple[Any, str, Any, float]]) -> None:
        self._answers = triples
        self.entities = SimpleNamespace(bundle=SimpleNamespace(labels=("O", "B-PER", "I-PER", "B-ORG", "I-ORG")))
        self.relations = SimpleNamespace(bundle=SimpleNamespace(labels=(MEMBER, COUPLE, "None")))

    def stream(self, tweets: Iterable[Tweet]) -> Iterator[TripleResult | Rejection]:
        for tweet, triples in zip(tweets, self._answers, strict=True):
            if tweet.image is not None:
                yield Rejection(0, tweet.id, "PictureError", "cannot be read")
                continue
            made = tuple(
                Triple(entity(*head), relation, entity(*tail), score) for head, relation, tail, score in triples
            )
            entities = tuple(end for each in made for end in (each.head, each.tail))
            yield TripleResult(tweet.id, entities, made, 0, 0)

    def between(self, posts: Iterable[tuple[Tweet, Sequence[Entity]]]) -> Iterator[TripleResult]:
        for tweet, entities in posts:
            yield TripleResult(tweet.id, tuple(entities), (Triple(*entities[:1], COUPLE, entities[1], 1.0),), 0, 0)


def told(*triples: Sequence[tuple[Any, str, Any, float]]) -> TriplePipeline:
    return cast("TriplePipeline", Told(*triples))


def post(
    *nodes: tuple[str, int, int], triples: Sequence[tuple[int, str, int]], image: Path | None = None
) -> PostExample:
    return PostExample(
        Tweet(words=list("abcdef"), image=image, id="mine"), tuple(entity(*each) for each in nodes), tuple(triples)
    )


POSTS = [post(PER, ORG, triples=[(0, MEMBER, 1)]), post(PER, LATE, triples=[(0, COUPLE, 1)])]


def test_end_to_end_and_given_entities() -> None:
    pipeline = told([(PER, MEMBER, ORG, 0.9)], [(PER, MEMBER, LATE, 0.8)])
    scores = score_triples(pipeline, POSTS)
    assert (scores.precision, scores.recall) == (1 / 2, 1 / 2)
    assert scores.per_relation == {MEMBER: F1(1 / 2, 1, 2 / 3), COUPLE: F1(0, 0, 0)}
    given = score_triples(pipeline, POSTS, given=True)
    assert given.per_relation == {MEMBER: F1(0, 0, 0), COUPLE: F1(1 / 2, 1, 2 / 3)}


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tweet mine of the data: cannot be read"):
        score_triples(told([]), [post(PER, triples=[], image=tmp_path)])
    with pytest.raises(
        DataError, match="the data have the entity type 'TIME', which the bundle does not know: PER, ORG"
    ):
        score_triples(told([]), [post(("TIME", 0, 0), triples=[])])
    with pytest.raises(DataError, match="the data have the relation 'likes', which the bundle does not know"):
        score_triples(told([]), [post(PER, LATE, triples=[(0, "likes", 1)])])


def test_marked_pairs() -> None:
    pairs = [((0, 2), MEMBER, (3, 4)), ((0, 2), "None", (3, 4)), ((5, 6), COUPLE, (0, 2)), ((0, 2), COUPLE, (4, 5))]
    examples = [RelationExample(Tweet(words=list("abcdef"), head=head, tail=tail), name) for head, name, tail in pairs]
    pipeline = told(
        [(PER, COUPLE, LATE, 0.9), (PER, MEMBER, ORG, 0.9)],  # found, among others
        [(PER, COUPLE, LATE, 0.9)],  # both ends found, in the other direction
        [(PER, COUPLE, LATE, 0.9)],  # no such tail
    )
    assert score_pairs(pipeline, examples) == PairScores(pairs=3, pairs_found=2 / 3, recall=1 / 3)
    with pytest.raises(DataError, match="no pair with a relation"):
        score_pairs(told(), examples[1:2])


def test_thresholds_and_the_best() -> None:
    pipeline = told([(PER, MEMBER, ORG, 0.6), (LATE, MEMBER, ORG, 0.4)], [(PER, MEMBER, LATE, 0.50001)])
    candidates = try_triple_thresholds(pipeline, POSTS)
    assert candidates == [
        TripleThreshold(0.0, 3, 1 / 3, 1 / 2, 0.4),
        TripleThreshold(0.4001, 2, 1 / 2, 1 / 2, 1 / 2),
        TripleThreshold(0.5001, 1, 1.0, 1 / 2, pytest.approx(2 / 3)),
    ]
    assert best(candidates).threshold == 0.5001
    with pytest.raises(DataError, match="no triples are found"):
        try_triple_thresholds(told([], []), POSTS)


def test_candidate_thresholds() -> None:
    assert candidate_thresholds([]) == [0.0]
    assert candidate_thresholds([1.0]) == [0.0, 1.0]
    (_, low, high) = candidate_thresholds([0.3, 0.99991])
    assert 0.3 < low < 0.301
    assert 0.99991 < high < 0.999911
    scores = [place / 100 for place in range(1, 101)]
    tried = candidate_thresholds(scores)
    assert [round(sum(score < each for score in scores), -1) for each in tried[:-1]] == list(range(0, 100, 10))
