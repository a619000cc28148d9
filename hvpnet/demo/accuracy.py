"""How well the held-out tweets are tagged."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from hvpnet.data import EntityExample
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS
from hvpnet.evaluation.eager import score
from hvpnet.evaluation.scoring import Prediction
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet_runtime.decoding.entities import entity_spans


@dataclass(frozen=True)
class Accuracy:
    """F1 of all entities, and the part of the ambiguous names whose type was found; both in [0, 1]."""

    f1: float
    ambiguous: float


def accuracy(
    config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[EntityExample], predicted: Sequence[Prediction]
) -> Accuracy:
    """Scores one prediction per example; `config` and `tokenizer` say which words a model sees."""
    return Accuracy(score(config, tokenizer, examples, predicted).f1, _ambiguous(examples, predicted))


def _ambiguous(examples: Sequence[EntityExample], predicted: Sequence[Prediction]) -> float:
    """Over the names that may be of any type: how often a prediction has the same words and type as the gold."""
    right = [
        (kind, first, last) in entity_spans(tags)
        for example, tags in zip(examples, predicted, strict=True)
        for kind, first, last in entity_spans(example.tags)
        if " ".join((example.tweet.words or ())[first : last + 1]) in AMBIGUOUS
    ]
    return sum(right) / len(right)
