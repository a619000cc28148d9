"""Scores of whole triples: of posts whose entities and relations are all known, and of single marked pairs."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from hvpnet.data.examples import RelationExample
from hvpnet.data.posts import PostExample
from hvpnet.errors import DataError
from hvpnet.evaluation.metrics import F1, f1_of_counts
from hvpnet_runtime.errors import brief
from hvpnet_runtime.labels import NO_RELATION
from hvpnet_runtime.triples import TriplePipeline
from hvpnet_runtime.triples.agreement import entity_types
from hvpnet_runtime.types import Entity, Rejection, TripleResult

Node: TypeAlias = tuple[str, int, int]
"""An entity's type, first word and last word."""

Edge: TypeAlias = tuple[Node, str, Node]
"""Head, relation and tail."""


@dataclass(frozen=True)
class TripleScores(F1):
    """Micro average over all triples.

    Attributes:
        per_relation: the same scores of each relation found in gold or prediction.
    """

    per_relation: dict[str, F1]


@dataclass(frozen=True)
class PairScores:
    """Recall of marked pairs that have a relation, in posts whose other pairs nobody marked.

    Attributes:
        pairs: that have a relation.
        pairs_found: share of which head and tail were both found as entities, of whatever type.
        recall: share of which a triple was found too, with the same head, relation and tail.
    """

    pairs: int
    pairs_found: float
    recall: float


def triple_scores(gold: Sequence[Collection[Edge]], predicted: Sequence[Collection[Edge]]) -> TripleScores:
    """Scores triples, which are right if span and type of head and tail and the relation are.

    Args:
        gold: the triples of every post.
        predicted: likewise.

    Raises:
        ValueError: the numbers of posts differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"gold ({len(gold)} posts) and predicted ({len(predicted)}) differ in length")
    wanted, found = ({(post, *edge) for post, edges in enumerate(each) for edge in edges} for each in (gold, predicted))

    def scores(relations: Collection[str]) -> F1:
        sets = (found & wanted, found, wanted)
        return f1_of_counts(*(sum(relation in relations for _, _, relation, _ in each) for each in sets))

    names = sorted({relation for _, _, relation, _ in found | wanted})
    return TripleScores(**asdict(scores(names)), per_relation={name: scores([name]) for name in names})


def score_triples(pipeline: TriplePipeline, posts: Sequence[PostExample], *, given: bool = False) -> TripleScores:
    """Scores a pipeline end to end, or on relations between entities that are `given`; see `triple_scores`.

    Raises:
        DataError: a post cannot be processed, or has an entity's type or a relation that the bundles do not know.
    """
    check_names(pipeline, posts)
    results = find_triples(pipeline, posts, given=given)
    return triple_scores([gold_edges(post) for post in posts], [edges(result) for result in results])


def find_triples(pipeline: TriplePipeline, posts: Sequence[PostExample], *, given: bool = False) -> list[TripleResult]:
    """What the pipeline finds in posts, end to end or between the entities that are `given`.

    Raises:
        DataError: a post cannot be processed.
    """
    if given:
        return list(_results(pipeline.between((post.tweet, post.entities) for post in posts)))
    return list(_results(pipeline.stream(post.tweet for post in posts)))


def score_pairs(pipeline: TriplePipeline, examples: Sequence[RelationExample]) -> PairScores:
    """How many marked pairs are found end to end; see `PairScores`. Pairs without a relation are left out.

    Raises:
        DataError: a post cannot be processed, or has a relation that the bundle does not know; or no pair has one.
    """
    examples = [example for example in examples if example.relation != NO_RELATION]
    _check_known({each.relation for each in examples}, pipeline.relations.bundle.labels, "relation")
    if not examples:
        raise DataError("the data have no pair with a relation in this split")
    found = right = 0
    for example, result in zip(examples, _results(pipeline.stream(each.tweet for each in examples)), strict=True):
        spans = {(entity.first_word, entity.last_word + 1) for entity in result.entities}
        found += example.tweet.head in spans and example.tweet.tail in spans
        marked = (example.tweet.head, example.relation, example.tweet.tail)
        right += marked in {((a, b + 1), name, (c, d + 1)) for (_, a, b), name, (_, c, d) in edges(result)}
    return PairScores(len(examples), found / len(examples), right / len(examples))


def check_names(pipeline: TriplePipeline, posts: Sequence[PostExample]) -> None:
    """Refuse posts of which the bundles could never be right.

    Raises:
        DataError: the bundles do not know a type of an entity, or a relation.
    """
    types = entity_types(pipeline.entities.bundle.labels)
    _check_known({each.type for post in posts for each in post.entities}, types, "entity type")
    relations = pipeline.relations.bundle.labels
    _check_known({relation for post in posts for _, relation, _ in post.triples}, relations, "relation")


def _check_known(given: Collection[str], known: Sequence[str], name: str) -> None:
    for each in sorted(set(given) - set(known)):
        raise DataError(f"the data have the {name} {brief(each)}, which the bundle does not know: {', '.join(known)}")


def gold_edges(post: PostExample) -> list[Edge]:
    """The triples of a post as they are given."""
    return [(_node(post.entities[head]), name, _node(post.entities[tail])) for head, name, tail in post.triples]


def edges(result: TripleResult) -> list[Edge]:
    """The triples of a post as they were found."""
    return [(_node(each.head), each.relation, _node(each.tail)) for each in result.triples]


def _node(entity: Entity) -> Node:
    return entity.type, entity.first_word, entity.last_word


def _results(outcomes: Iterable[TripleResult | Rejection]) -> Iterator[TripleResult]:
    for outcome in outcomes:
        if isinstance(outcome, Rejection):
            raise DataError(f"tweet {outcome.id} of the data: {outcome.message}")
        yield outcome
