"""The published scores of predictions, whatever made them; needs no PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

from hvpnet.data.examples import Example, RelationExample, Split
from hvpnet.errors import DataError
from hvpnet.evaluation.metrics import EntityScores, RelationScores, entity_scores, relation_scores, require_scorer
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.errors import brief
from hvpnet_runtime.labels import NO_RELATION
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.encode_text import TextEncoder
from hvpnet_runtime.types import EntityResult, Rejection

Prediction: TypeAlias = tuple[str, ...] | str
"""One BIO tag per word, or the name of a relation."""

Scores: TypeAlias = EntityScores | RelationScores

_Seen: TypeAlias = list[bool]
"""Per word of a tweet whether the model sees it; empty for a relation."""


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
    return _score(labels, examples, [_seen(encoder, example) for example in examples], predictions)


def _seen(encoder: TextEncoder, example: Example) -> _Seen:
    if isinstance(example, RelationExample):
        return []
    return [place is not None for place in encoder.encode_entities(example.tweet.words or (), blank=True).first_pieces]


def _score(
    labels: Sequence[str], examples: Sequence[Example], seen: Sequence[_Seen], predictions: Sequence[Prediction]
) -> Scores:
    gold, predicted, relations = list[list[str]](), list[list[str]](), list[str]()
    for example, words, prediction in zip(examples, seen, predictions, strict=True):
        if isinstance(example, RelationExample):
            if example.relation not in labels:
                raise DataError(f"{brief(example.relation)} is not among the model's relations: {', '.join(labels)}")
            relations.append(example.relation)
            continue
        for tags, kept in ((example.tags, gold), (prediction, predicted)):
            kept.append([tag for tag, is_seen in zip(tags, words, strict=True) if is_seen])
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
    bundle = pipeline.bundle
    require_scorer(bundle.task)
    read = bundle.sizes.pictures > 0 and not without_pictures
    check_split(split, bundle.task, with_pictures=read, cure="add their folder, or score with without_pictures=True")
    seen = [_seen(pipeline.text_encoder, example) for example in split.examples]
    kept = [index for index, words in enumerate(seen) if any(words) or bundle.task == "re"]
    examples = [split.examples[index] for index in kept]
    tweets = [example.tweet for example in examples]
    if without_pictures:
        tweets = [replace(tweet, image=None, objects=()) for tweet in tweets]
    predictions: list[Prediction] = []
    for outcome in pipeline.stream(tweets):
        if isinstance(outcome, Rejection):
            raise DataError(f"tweet {outcome.id} of the data: {outcome.message}")
        predictions.append(outcome.tags if isinstance(outcome, EntityResult) else outcome.relation)
    return _score(bundle.labels, examples, [seen[index] for index in kept], predictions)
