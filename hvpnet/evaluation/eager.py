"""Predictions and scores of the eager model: the reference for every backend."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from hvpnet.data.examples import Example
from hvpnet.evaluation.scoring import Prediction, Scores, score_predictions
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import PictureFeatures
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder
from hvpnet_runtime.labels import OUTSIDE, bio_tag
from hvpnet_runtime.preprocessing.encode_text import Encoding


@torch.no_grad()
def predict(
    model: HVPNeT,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    features: PictureFeatures | None = None,
    batch_size: int = 32,
) -> list[Prediction]:
    """Predicts with the eager model, which is left in evaluation mode.

    Args:
        model: for the task of the examples.
        tokenizer: as `hvpnet.modeling.tokenizer.load_tokenizer` gives it.
        examples: their gold labels are not read.
        features: of at least the examples' pictures; computed if not given.
        batch_size: tweets per run; the predictions do not depend on it.

    Returns:
        One prediction per example, in order. The tag of a word is that of its first piece; a word without one, or with
        a label there that is not a B- or I- tag, is O.

    Raises:
        DataError: an example cannot be encoded.
        PictureError: a picture cannot be read.
    """
    model.eval()
    device = next(model.parameters()).device
    tweets = [example.tweet for example in examples]
    features = features or PictureFeatures.compute(model, tweets)
    encoder = text_encoder(tokenizer, model.config)
    encodings = [encode(encoder, example) for example in examples]
    predictions: list[Prediction] = []
    for start in range(0, len(examples), batch_size):
        batch = slice(start, start + batch_size)
        text = stack_texts(encoder, encodings[batch], device)
        paths = model.decode(model(**text, prefix=features.prefix(model, tweets[batch])), text["attention_mask"])
        predictions += [_prediction(model.config, *row) for row in zip(encodings[batch], paths, strict=True)]
    return predictions


def score(
    config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Scores:
    """Scores predictions of a model with this configuration and tokenizer; see `score_predictions`."""
    return score_predictions(config.labels, text_encoder(tokenizer, config), examples, predictions)


def evaluate(
    model: HVPNeT, tokenizer: Tokenizer, examples: Sequence[Example], features: PictureFeatures | None = None
) -> Scores:
    """Scores the eager model on examples; arguments and errors as in `predict`."""
    return score(model.config, tokenizer, examples, predict(model, tokenizer, examples, features))


def _prediction(config: HVPNeTConfig, encoding: Encoding, path: Sequence[int]) -> Prediction:
    """From the decoded indices, one per token for entities or one relation."""
    if config.task == "re":
        return config.labels[path[0]]
    return tuple(OUTSIDE if place is None else bio_tag(config.labels[path[place]]) for place in encoding.first_pieces)
