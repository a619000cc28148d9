"""How well the held-out tweets are tagged, with pictures and without."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from hvpnet.data import EntityExample
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS
from hvpnet.evaluation.eager import score
from hvpnet.evaluation.scoring import Prediction
from hvpnet.modeling.model import HVPNeT
from hvpnet_runtime.decoding.entities import entity_spans


@dataclass(frozen=True)
class Accuracy:
    """F1 of all entities, and the part of the ambiguous names whose type was found; both in [0, 1]."""

    f1: float
    ambiguous: float


def accuracy(
    model: HVPNeT, tokenizer: Tokenizer, examples: Sequence[EntityExample], predicted: Sequence[Prediction]
) -> Accuracy:
    """Score predictions of a model, by whatever ran it."""
    return Accuracy(score(model.config, tokenizer, examples, predicted).f1, _ambiguous(examples, predicted))


def without_pictures(examples: Sequence[EntityExample]) -> list[EntityExample]:
    """The same tweets, their pictures withheld."""
    return [replace(example, tweet=replace(example.tweet, image=None, objects=())) for example in examples]


def _ambiguous(examples: Sequence[EntityExample], predicted: Sequence[Prediction]) -> float:
    """Over the names that may be of any type: how often a prediction has the same words and type as the gold."""
    right = total = 0
    for example, tags in zip(examples, predicted, strict=True):
        words, found = example.tweet.words or (), set(entity_spans(tags))
        for span in entity_spans(example.tags):
            if " ".join(words[span.first : span.last + 1]) in AMBIGUOUS:
                total += 1
                right += span in found
    return right / total
