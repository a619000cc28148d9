"""Tweets of the training data as requests: some to calibrate INT8 with, others to verify it on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hvpnet.config import HVPNeTConfig
from hvpnet.data import Example, Split
from hvpnet.encoding import encode, stack_texts, text_encoder
from hvpnet.features import load_images, picture_slots
from hvpnet_export.errors import ExportError
from hvpnet_export.parity import Request

TWEETS = 64
"""To calibrate with, and as many others to verify on."""

_BATCH = 4
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class CalibrationData:
    """What the INT8 graphs are made with.

    Attributes:
        calibration: tweets whose activations set the ranges.
        verification: other tweets, on which the graphs are held against the eager model.
    """

    calibration: tuple[Example, ...]
    verification: tuple[Example, ...]

    @classmethod
    def choose(cls, split: Split, config: HVPNeTConfig) -> Self:
        """Tweets evenly spaced over a split, alternately for the one and for the other.

        Raises:
            ExportError: the split is of the other task, has too few tweets, or no pictures for a model that reads them.
        """
        if split.task != config.task:
            raise ExportError(f"the calibration data are for task {split.task}, the checkpoint is for {config.task}")
        if config.pictures and not split.has_pictures:
            raise ExportError("the calibration data have no pictures, and the model reads them: add the pictures")
        if len(split.examples) < 2:
            raise ExportError("the calibration data have one tweet: one is needed to calibrate and one to verify")
        step = max(1, len(split.examples) // (2 * TWEETS))
        chosen = split.examples[::step][: 2 * TWEETS]
        return cls(chosen[::2], chosen[1::2])


def requests(config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[Example]) -> Iterator[Request]:
    """Tweets as both graphs read them, a few at a time.

    Raises:
        DataError: a tweet cannot be encoded.
        PictureError: a picture cannot be read.
    """
    encoder = text_encoder(tokenizer, config)
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        text = stack_texts(encoder, [encode(encoder, example) for example in batch], _CPU)
        inputs = {name: tensor for name, tensor in vars(text).items() if tensor is not None}
        if config.head == "cls":  # its text graph reads no markers
            inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        yield _pictures(config, batch), inputs


def _pictures(config: HVPNeTConfig, examples: Sequence[Example]) -> Tensor | None:
    """[B, pictures, 3, 224, 224], zeros for blanks; None for text_only."""
    if not config.pictures:
        return None
    slots = [path for example in examples for path in picture_slots(example.tweet, config)]
    images: Tensor = torch.zeros(len(slots), 3, 224, 224)
    given = [row for row, path in enumerate(slots) if path is not None]
    if given:
        with ThreadPoolExecutor() as pool:
            images[given] = load_images([path for path in slots if path is not None], pool)
    return images.reshape(len(examples), -1, *images.shape[1:])
