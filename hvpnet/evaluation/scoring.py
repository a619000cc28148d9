"""The published scores of predictions, whatever made them; needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from hvpnet.data.examples import EntityExample, Example, RelationExample, Split
from hvpnet.errors import DataError
from hvpnet.evaluation.metrics import EntityScores, RelationScores, entity_scores, relation_scores
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import EntityResult, Rejection, Result, Tweet

Prediction: TypeAlias = tuple[str, ...] | str
"""One BIO tag per word, or the name of a relation."""

Scores: TypeAlias = EntityScores | RelationScores

NO_RELATION = "None"
"""The relation that published scores leave out."""


def score_entities(
    examples: Sequence[Example], predictions: Sequence[Prediction], seen: Sequence[Sequence[bool]]
) -> EntityScores:
    """Entity F1. As published, words that the model does not see count neither as gold nor as predicted.

    Args:
        examples: with gold tags.
        predictions: one tag per word of each.
        seen: per word, whether it has a piece within the piece budget.

    Raises:
        ValueError: the numbers of examples or words differ.
    """
    gold, predicted = [], []
    for example, tags, kept in zip(examples, predictions, seen, strict=True):
        if isinstance(example, EntityExample):
            gold.append([tag for tag, keep in zip(example.tags, kept, strict=True) if keep])
            predicted.append([tag for tag, keep in zip(tags, kept, strict=True) if keep])
    return entity_scores(gold, predicted)


def score_relations(
    relations: Sequence[str], examples: Sequence[Example], predictions: Sequence[Prediction]
) -> RelationScores:
    """Relation micro-F1 without the none class.

    Raises:
        DataError: an example has a relation that is not among `relations`.
    """
    gold = [example.relation for example in examples if isinstance(example, RelationExample)]
    for relation in gold:
        if relation not in relations:
            raise DataError(f"{relation!r} is not among the model's relations: {', '.join(relations)}")
    none = relations.index(NO_RELATION) if NO_RELATION in relations else None
    return relation_scores(
        [relations.index(relation) for relation in gold], [relations.index(str(name)) for name in predictions], none
    )


def check_split(split: Split, task: Task, *, with_pictures: bool) -> None:
    """Refuse data that say nothing about a bundle.

    Raises:
        DataError: the split is empty, for the other task, or lacks the pictures that the bundle reads.
    """
    if split.task != task:
        raise DataError(f"the data are for task {split.task}, the bundle is for {task}")
    if not split.examples:
        raise DataError("the data have no tweets in this split")
    if with_pictures and not split.has_pictures:
        raise DataError("the data have no pictures and the bundle reads them: evaluate has --without-pictures")


def score_pipeline(pipeline: Pipeline, split: Split, *, with_pictures: bool = True) -> Scores:
    """The published scores of a pipeline on a split.

    As published, words without a prediction (beyond the piece budget, or without a piece) are left out of gold and
    prediction alike.

    Raises:
        DataError: see `check_split`; or a tweet cannot be processed, or has a relation that the bundle does not know.
    """
    bundle = pipeline.bundle
    check_split(split, bundle.task, with_pictures=with_pictures and bundle.sizes.pictures > 0)
    tweets = [_tweet(example.tweet, with_pictures=with_pictures) for example in split.examples]
    predictions = [_prediction(outcome) for outcome in pipeline.stream(tweets)]
    if bundle.task == "re":
        return score_relations(bundle.labels, split.examples, predictions)
    encodings = (pipeline.text_encoder.encode_entities(tweet.words or ()) for tweet in tweets)
    seen = [[position is not None for position in encoding.first_pieces] for encoding in encodings]
    return score_entities(split.examples, predictions, seen)


def _prediction(outcome: Result | Rejection) -> Prediction:
    if isinstance(outcome, Rejection):
        raise DataError(f"tweet {outcome.row} of the data: {outcome.message}")
    return outcome.tags if isinstance(outcome, EntityResult) else outcome.relation


def _tweet(tweet: Tweet, *, with_pictures: bool) -> Tweet:
    return tweet if with_pictures else replace(tweet, image=None, objects=())
