"""What exported graphs are compared on: random requests of every size, or the tweets of a data set."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hvpnet.data.examples import Example
from hvpnet.modeling.config import MAX_OBJECTS, HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import load_images, picture_slots
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder

Request: TypeAlias = tuple[Tensor | None, dict[str, Tensor]]
"""Pictures [B, pictures, 3, 224, 224], None for text_only, and the text graph's other inputs by name."""


@dataclass(frozen=True)
class Case:
    """One request: `objects[b]` crops of tweet b are real, the rest are blank."""

    length: int
    objects: tuple[int, ...]


def default_cases(max_length: int) -> tuple[Case, ...]:
    """Batch sizes 1 to 5, lengths from one piece to the limit, every number of objects."""
    lengths = [min(length, max_length) for length in (3, 17, 33, 80, max_length)]
    objects: tuple[tuple[int, ...], ...] = ((0,), (1, 3), (2, 0, 3), (3,), (0, 1, 2, 3, 3))
    return tuple(Case(length, counts) for length, counts in zip(lengths, objects, strict=True))


def random_requests(model: HVPNeT, seed: int = 0) -> Iterator[Request]:
    """One request for each of `default_cases`."""
    generator = torch.Generator().manual_seed(seed)
    for case in default_cases(model.config.max_length):
        yield _request(model, case, generator)


def example_requests(
    config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[Example], batch_size: int = 8
) -> Iterator[Request]:
    """The tweets of a data set, as the eager model reads them.

    Raises:
        DataError: an example cannot be encoded.
        PictureError: a picture cannot be read.
    """
    encoder = text_encoder(tokenizer, config)
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        text = stack_texts(encoder, [encode(encoder, example) for example in batch], torch.device("cpu"))
        names = ("input_ids", "attention_mask") if config.head == "cls" else tuple(vars(text))  # [CLS] needs no marker
        inputs = {name: getattr(text, name) for name in names if getattr(text, name) is not None}
        yield _pictures(config, batch) if config.pictures else None, inputs


def _pictures(config: HVPNeTConfig, examples: Sequence[Example]) -> Tensor:
    """[B, pictures, 3, 224, 224], zeros for blanks."""
    slots = [picture_slots(example.tweet, config) for example in examples]
    files = [path for row in slots for path in row if path is not None]
    images = torch.zeros(len(examples), config.pictures, 3, 224, 224)
    if files:
        with ThreadPoolExecutor() as pool:
            images[torch.tensor([[path is not None for path in row] for row in slots])] = load_images(files, pool)
    return images


def _request(model: HVPNeT, case: Case, generator: torch.Generator) -> Request:
    """Random pictures, blank where there is no object, and random text inputs."""
    config, batch = model.config, len(case.objects)
    lengths = [case.length] + [max(3, case.length - 5 * row) for row in range(1, batch)]
    ids = torch.randint(1, config.bert.vocab_size, (batch, case.length), generator=generator)
    mask = (torch.arange(case.length)[None] < torch.tensor(lengths)[:, None]).long()  # [B, T]
    text = {"input_ids": ids * mask, "attention_mask": mask}
    if config.task == "re" and config.head == "markers":
        text["head_index"] = torch.arange(batch) % 2 + 1
        text["tail_index"] = torch.tensor(lengths) - 1
    if not config.pictures:
        return None, text
    images = torch.randn(batch, 1 + MAX_OBJECTS, 3, 224, 224, generator=generator)
    for row, count in enumerate(case.objects):
        images[row, 1 + count :] = 0
    return images[:, -config.pictures :], text
