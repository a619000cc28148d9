"""The published scores of predictions, whatever made them; needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from hvpnet.data.examples import Example, RelationExample, Split
from hvpnet.errors import DataError
from hvpnet.evaluation.metrics import EntityScores, RelationScores, entity_scores, relation_scores, require_scorer
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.encode_text import TextEncoder
from hvpnet_runtime.types import EntityResult, Rejection

Prediction: TypeAlias = tuple[str, ...] | str
"""One BIO tag per word, or the name of a relation."""

Scores: TypeAlias = EntityScores | RelationScores

NO_RELATION = "None"
"""The relation that published scores leave out."""


def score_predictions(
    labels: Sequence[str], encoder: TextEncoder, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Scores:
    """Entity F1, or relation micro-F1 without the none class, as the published code has them.

    Words that the model does not see, because they lie beyond the piece budget or give no piece, count neither as gold
    nor as predicted.

    Args:
        labels: of the model.
        encoder: of the model; it says which words the model sees.
        examples: of the model's task, one at least.
        predictions: one per example, by any backend.

    Raises:
        DataError: an example has a relation that the model does not know.
        ValueError: there is not one prediction per example, or not one tag per word.
    """
    gold, predicted, relations = list[list[str]](), list[list[str]](), list[str]()
    for example, prediction in zip(examples, predictions, strict=True):
        if isinstance(example, RelationExample):
            if example.relation not in labels:
                raise DataError(f"{example.relation!r} is not among the model's relations: {', '.join(labels)}")
            relations.append(example.relation)
            continue
        words = example.tweet.words or ()
        places = encoder.encode_entities(words).first_pieces if encoder.reads(words) else [None] * len(words)
        for tags, kept in ((example.tags, gold), (prediction, predicted)):
            kept.append([tag for tag, place in zip(tags, places, strict=True) if place is not None])
    return relation_scores(relations, predictions, NO_RELATION) if relations else entity_scores(gold, predicted)


def check_split(split: Split, task: Task, *, with_pictures: bool, cure: str = "add their folder") -> None:
    """Refuse data that say nothing about a bundle; `cure` is for missing pictures.

    Raises:
        DataError: the split is empty, for the other task, or lacks the pictures that the bundle reads.
    """
    if split.task != task:
        raise DataError(f"the data are for task {split.task}, the bundle is for {task}")
    if not split.examples:
        raise DataError("the data have no tweets in this split")
    if with_pictures and not split.has_pictures:
        raise DataError(f"the data have no pictures and the bundle reads them: {cure}")


def score_pipeline(pipeline: Pipeline, split: Split, *, without_pictures: bool = False) -> Scores:
    """The published scores of a pipeline on a split, of which it may be shown no picture; see `score_predictions`.

    Tweets whose words give no piece are left out: to the published code they are texts without a word.

    Raises:
        DataError: see `check_split`; or a tweet cannot be processed, or has a relation that the bundle does not know.
        MissingExtraError: seqeval, which scores entities, is not installed.
    """
    bundle, encoder = pipeline.bundle, pipeline.text_encoder
    require_scorer(bundle.task)
    read = bundle.sizes.pictures > 0 and not without_pictures
    check_split(split, bundle.task, with_pictures=read, cure="add their folder, or score with without_pictures=True")
    examples = [
        example for example in split.examples if bundle.task == "re" or encoder.reads(example.tweet.words or ())
    ]
    tweets = [example.tweet for example in examples]
    if without_pictures:
        tweets = [replace(tweet, image=None, objects=()) for tweet in tweets]
    predictions: list[Prediction] = []
    for outcome in pipeline.stream(tweets):
        if isinstance(outcome, Rejection):
            raise DataError(f"tweet {outcome.id} of the data: {outcome.message}")
        predictions.append(outcome.tags if isinstance(outcome, EntityResult) else outcome.relation)
    return score_predictions(bundle.labels, encoder, examples, predictions)
