"""Examples to what the model reads and learns: token ids by the runtime's encoder, and labels."""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hvpnet.data.examples import Example, RelationExample
from hvpnet.errors import DataError
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet_runtime.errors import TextError, brief
from hvpnet_runtime.preprocessing.encode_text import Encoding, TextEncoder

PAD, INNER_PIECE, CLS, SEP = "PAD", "X", "[CLS]", "[SEP]"
"""Published labels of what is not a word's first piece."""


def text_encoder(tokenizer: Tokenizer, config: HVPNeTConfig) -> TextEncoder:
    """The encoder that the runtime will use for this model."""
    return TextEncoder(tokenizer, config.max_length, markers=config.task == "re")


def encode(encoder: TextEncoder, example: Example) -> Encoding:
    """Token ids of one example, cut at the encoder's limit; words without a piece are taken. Both are as published.

    Raises:
        DataError: there is no word, or a marker of the pair lies beyond the limit; the message names the tweet.
    """
    tweet = example.tweet
    try:
        if tweet.head is None or tweet.tail is None:
            return encoder.encode_entities(tweet.words or (), blank=True)
        return encoder.encode_relation(tweet.words or (), tweet.head, tweet.tail, blank=True)
    except TextError as error:
        raise DataError(f"tweet {tweet.id} ({' '.join(tweet.words or ())[:60]}): {error}") from error


def example_labels(encoding: Encoding, example: Example, labels: Sequence[str]) -> tuple[int, ...]:
    """Gold label indices: one per token for entities, the relation alone for relations.

    The first piece of a word has the word's tag and the other pieces X; [CLS] and [SEP] have labels of their own
    (published code).

    Raises:
        DataError: a label is not among the model's.
    """
    if isinstance(example, RelationExample):
        names = [example.relation]
    else:
        names = [CLS, *[INNER_PIECE] * (len(encoding.input_ids) - 2), SEP]
        for tag, position in zip(example.tags, encoding.first_pieces, strict=True):
            if position is not None:
                names[position] = tag
    for name in names:
        if name not in labels:
            raise DataError(f"{brief(name)} is not among the model's labels: {', '.join(labels)}")
    return tuple(labels.index(name) for name in names)


def stack_texts(encoder: TextEncoder, encodings: Sequence[Encoding], device: torch.device) -> dict[str, Tensor]:
    """A batch of texts on the device, as `HVPNeT.forward` takes it.

    Returns:
        `input_ids` and `attention_mask` int64 [B, T], padded to the longest text, and for relations `head_index` and
        `tail_index` int64 [B], the positions of <s> and <o>.
    """
    input_ids, attention_mask = map(torch.from_numpy, encoder.pad(encodings))
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if encodings[0].head_index is not None:
        batch |= {
            name: torch.tensor([getattr(row, name) for row in encodings]) for name in ("head_index", "tail_index")
        }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def stack_labels(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """Gold labels of a batch, [B, T] for entities, padded to the longest, or [B, 1] for relations."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=padding).to(device)
