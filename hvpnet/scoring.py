"""The published scores of predictions, whatever made them; needs no PyTorch."""

from collections.abc import Sequence
from typing import TypeAlias

from hvpnet.data.examples import EntityExample, Example, RelationExample
from hvpnet.errors import DataError
from hvpnet.metrics import EntityScores, RelationScores, entity_scores, relation_scores

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
