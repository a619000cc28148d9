"""Scores of the two tasks, as the published code computes them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module

from hvpnet_runtime.bundle import Task
from hvpnet_runtime.errors import MissingExtraError
from hvpnet_runtime.labels import OUTSIDE, bio_tag


@dataclass(frozen=True)
class F1:
    """Precision, recall and F1, each in [0, 1], 0 where the denominator is.

    Attributes:
        precision: correct over predicted.
        recall: correct over gold.
        f1: their harmonic mean.
    """

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class EntityScores(F1):
    """Micro average over all entities.

    Attributes:
        per_type: the same scores of each entity type found in gold or prediction.
    """

    per_type: dict[str, F1]


@dataclass(frozen=True)
class RelationScores(F1):
    """Micro average over all relations but none.

    Attributes:
        accuracy: correct over all instances, none included.
    """

    accuracy: float


def require_scorer(task: Task) -> None:
    """Fail before there is something to score.

    Raises:
        MissingExtraError: the task is entities, and seqeval is not installed.
    """
    if task == "ner":
        try:
            import_module("seqeval.metrics")
        except ImportError as error:
            raise MissingExtraError("seqeval", "eval", "scoring entities") from error


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> EntityScores:
    """Scores entities by seqeval in its default mode, where an I- tag may begin an entity (published code).

    Tags that are not B- or I- (PAD, X, [CLS], [SEP]) count as O. The published code hands them to seqeval as they are,
    which can take such a prediction for an entity of a type of its own.

    Args:
        gold: one sequence of BIO tags per tweet.
        predicted: the same, with the same lengths.

    Raises:
        ValueError: the lengths differ.
        MissingExtraError: seqeval is not installed.
    """
    if [len(tags) for tags in gold] != [len(tags) for tags in predicted]:
        raise ValueError(f"gold ({len(gold)} tweets) and predicted ({len(predicted)}) differ in length or in a tweet's")
    require_scorer("ner")
    from seqeval.metrics import classification_report

    gold_tags, predicted_tags = ([[bio_tag(tag) for tag in tags] for tags in each] for each in (gold, predicted))
    if all(tag == OUTSIDE for tags in gold_tags + predicted_tags for tag in tags):
        return EntityScores(0.0, 0.0, 0.0, {})  # seqeval's averages are NaN without any type
    report = classification_report(gold_tags, predicted_tags, output_dict=True, zero_division=0)
    scores = {
        name: F1(float(row["precision"]), float(row["recall"]), float(row["f1-score"])) for name, row in report.items()
    }
    micro = scores["micro avg"]
    per_type = {name: score for name, score in scores.items() if not name.endswith(" avg")}
    return EntityScores(micro.precision, micro.recall, micro.f1, per_type)


def relation_scores(gold: Sequence[object], predicted: Sequence[object], none: object) -> RelationScores:
    """Scores relations, those that are `none` left out (published `eval_result`).

    Args:
        gold: one relation per instance, a name or an index.
        predicted: the same, with the same length.
        none: the class of no relation, which need not be there.

    Raises:
        ValueError: the lengths differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"gold ({len(gold)} instances) and predicted ({len(predicted)}) differ in length")
    hits = [relation for relation, guess in zip(gold, predicted, strict=True) if relation == guess]
    found, wanted, correct = (sum(relation != none for relation in each) for each in (predicted, gold, hits))
    scores = f1_of_counts(correct, found, wanted)
    return RelationScores(**asdict(scores), accuracy=_ratio(len(hits), len(gold)))


def f1_of_counts(correct: int, predicted: int, gold: int) -> F1:
    """The scores of so many that were predicted, of which so many are correct, and of so many that should have been."""
    precision, recall = _ratio(correct, predicted), _ratio(correct, gold)
    return F1(precision, recall, _ratio(2 * precision * recall, precision + recall))


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
