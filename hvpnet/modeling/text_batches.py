"""Examples to what the model reads and learns: token ids by the runtime's encoder, and labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hvpnet.data.examples import EntityExample, Example, RelationExample
from hvpnet.errors import DataError
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet_runtime.errors import TextError
from hvpnet_runtime.preprocessing.encode_text import Encoding, TextEncoder

PAD, INNER_PIECE, CLS, SEP = "PAD", "X", "[CLS]", "[SEP]"
"""Published labels of what is not a word's first piece."""


@dataclass(frozen=True)
class TextBatch:
    """Texts of a batch, padded to the longest; the arguments of `HVPNeT.forward`.

    Attributes:
        input_ids: [B, T] int64.
        attention_mask: [B, T] int64, 1 = token.
        head_index: [B] int64, position of <s>; None for entities.
        tail_index: [B] int64, position of <o>; None for entities.
    """

    input_ids: Tensor
    attention_mask: Tensor
    head_index: Tensor | None
    tail_index: Tensor | None


def text_encoder(tokenizer: Tokenizer, config: HVPNeTConfig) -> TextEncoder:
    """The encoder that the runtime will use for this model."""
    return TextEncoder(tokenizer, config.max_length, markers=config.task == "re")


def encode(encoder: TextEncoder, example: Example) -> Encoding:
    """Token ids of one example, cut at the encoder's limit as published.

    Raises:
        DataError: the words give no piece, or a marker of the pair lies beyond the limit; the message names the tweet.
    """
    tweet = example.tweet
    try:
        if tweet.head is None or tweet.tail is None:
            return encoder.encode_entities(tweet.words or ())
        return encoder.encode_relation(tweet.words or (), tweet.head, tweet.tail)
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
        return (label_index(labels, example.relation),)
    return tuple(label_index(labels, name) for name in _token_labels(encoding, example))


def stack_texts(encoder: TextEncoder, encodings: Sequence[Encoding], device: torch.device) -> TextBatch:
    """A batch of texts, on the device."""
    input_ids, attention_mask = encoder.pad(encodings)  # [B, T]
    markers = [
        torch.tensor(positions, device=device) if None not in positions else None  # [B]
        for positions in ([row.head_index for row in encodings], [row.tail_index for row in encodings])
    ]
    on_device = (torch.from_numpy(array).to(device) for array in (input_ids, attention_mask))
    return TextBatch(*on_device, *markers)


def stack_labels(rows: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """Gold labels of a batch, [B, T] for entities, padded to the longest, or [B, 1] for relations."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows], device=device)


def label_index(labels: Sequence[str], name: str) -> int:
    """The index of a label.

    Raises:
        DataError: it is not among the model's.
    """
    if name not in labels:
        raise DataError(f"{name!r} is not among the model's labels: {', '.join(labels)}")
    return labels.index(name)


def _token_labels(encoding: Encoding, example: EntityExample) -> list[str]:
    names = [CLS, *[INNER_PIECE] * (len(encoding.input_ids) - 2), SEP]
    for tag, position in zip(example.tags, encoding.first_pieces, strict=True):
        if position is not None:
            names[position] = tag
    return names
