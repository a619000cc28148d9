"""Predictions and scores of the eager model: the reference for every backend."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from hvpnet.data.examples import Example
from hvpnet.evaluation.scoring import Prediction, Scores, score_entities, score_relations
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import PictureFeatures
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder
from hvpnet_runtime.preprocessing.encode_text import Encoding

OUTSIDE = "O"


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
        prefix = features.prefix(model, tweets[batch])  # [B, pictures, layers, 2, prefix_length * hidden]
        outputs = model(text.input_ids, text.attention_mask, prefix, text.head_index, text.tail_index)
        paths = model.decode(outputs, text.attention_mask)
        predictions += [_prediction(model.config, *row) for row in zip(encodings[batch], paths, strict=True)]
    return predictions


def score(
    config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Scores:
    """Scores predictions as the published code does.

    Words that the model does not see, because they lie beyond the piece budget or give no piece, count neither as gold
    nor as predicted.

    Args:
        config: of the model.
        tokenizer: of the model.
        examples: of its task.
        predictions: one per example, by any backend.

    Raises:
        DataError: an example cannot be encoded, or has a relation that the model does not know.
        ValueError: there is not one prediction per example, or not one tag per word.
    """
    if config.task == "re":
        return score_relations(config.labels, examples, predictions)
    encoder = text_encoder(tokenizer, config)
    seen = [[position is not None for position in encode(encoder, example).first_pieces] for example in examples]
    return score_entities(examples, predictions, seen)


def evaluate(
    model: HVPNeT,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    features: PictureFeatures | None = None,
    batch_size: int = 32,
) -> Scores:
    """Scores the eager model on examples; arguments and errors as in `predict`."""
    return score(model.config, tokenizer, examples, predict(model, tokenizer, examples, features, batch_size))


def _prediction(config: HVPNeTConfig, encoding: Encoding, path: Sequence[int]) -> Prediction:
    """From the decoded indices, one per token for entities or one relation."""
    if config.task == "re":
        return config.labels[path[0]]
    names = [config.labels[index] for index in path]
    tags = [name if name.startswith(("B-", "I-")) else OUTSIDE for name in names]
    return tuple(OUTSIDE if position is None else tags[position] for position in encoding.first_pieces)
