"""What exported graphs are compared on: random inputs of every size, or the tweets of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from hvpnet.data.examples import Example
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.picture_features import load_pixels_of, picture_files, picture_slots
from hvpnet.modeling.text_batches import encode, stack_texts, text_encoder
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet_runtime.bundle import MAX_OBJECTS


@dataclass(frozen=True)
class ParityCase:
    """What both sides are asked.

    Attributes:
        pixels: distinct pictures, uint8 [N, 224, 224, 3]; None for `text_only`.
        slots: int64 [B, pictures]: which of them stands where in each tweet, `BLANK` for the blank picture.
        text: the text graph's other inputs by name.
    """

    pixels: Tensor | None
    slots: Tensor
    text: dict[str, Tensor]

    def gather(self, prefixes: Tensor, blank: Tensor) -> Tensor:
        """Prefixes of the pictures [N, ...] and of the blank one [...] -> those of the tweets [B, pictures, ...]."""
        return torch.cat([prefixes, blank[None]])[self.slots]  # BLANK, -1, is the last


BLANK = -1


@dataclass(frozen=True)
class Shape:
    """One random case: `objects[b]` crops of tweet b are real, the rest are blank."""

    length: int
    objects: tuple[int, ...]


def default_shapes(max_length: int) -> tuple[Shape, ...]:
    """Batch sizes 1 to 5, lengths from one piece to the limit, every number of objects."""
    lengths = [min(length, max_length) for length in (3, 17, 33, 80, max_length)]
    objects: tuple[tuple[int, ...], ...] = ((0,), (1, 3), (2, 0, 3), (3,), (0, 1, 2, 3, 3))
    return tuple(Shape(length, counts) for length, counts in zip(lengths, objects, strict=True))


def random_cases(model: HVPNeT, seed: int = 0) -> Iterator[ParityCase]:
    """Random pictures and texts for each of `default_shapes`; pictures are blank where a tweet has no object."""
    config, generator = model.config, torch.Generator().manual_seed(seed)
    for shape in default_shapes(config.max_length):
        batch = len(shape.objects)
        lengths = torch.tensor([max(3, shape.length - 5 * row) for row in range(batch)])
        ids = torch.randint(1, config.bert.vocab_size, (batch, shape.length), generator=generator)
        mask = (torch.arange(shape.length)[None] < lengths[:, None]).long()  # [B, T]
        text = {"input_ids": ids * mask, "attention_mask": mask}
        if config.task == "re" and config.head == "markers":
            text |= {"head_index": torch.arange(batch) % 2 + 1, "tail_index": lengths - 1}
        real = torch.arange(1 + MAX_OBJECTS)[None] <= torch.tensor(shape.objects)[:, None]  # [B, whole and objects]
        real = real[:, 1 + MAX_OBJECTS - config.pictures :]  # [B, pictures]
        slots = torch.where(real, (real.flatten().cumsum(0) - 1).reshape(real.shape), BLANK)
        size = (int(real.sum()), PICTURES.crop, PICTURES.crop, 3)
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8) if config.pictures else None
        yield ParityCase(pixels, slots, text)


def example_cases(
    config: HVPNeTConfig, tokenizer: Tokenizer, examples: Sequence[Example], batch_size: int = 8
) -> Iterator[ParityCase]:
    """The tweets of a data set, as the eager model reads them.

    Raises:
        DataError: an example cannot be encoded.
        PictureError: a picture cannot be read.
    """
    encoder = text_encoder(tokenizer, config)
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        text = stack_texts(encoder, [encode(encoder, example) for example in batch], torch.device("cpu"))
        if config.head == "cls":  # which needs no marker
            text = {name: text[name] for name in ("input_ids", "attention_mask")}
        yield ParityCase(*_pictures(config, batch), text)


def _pictures(config: HVPNeTConfig, examples: Sequence[Example]) -> tuple[Tensor | None, Tensor]:
    """Distinct pictures, and where they stand."""
    files = picture_files([example.tweet for example in examples], config)
    places = {path: place for place, path in enumerate(files)} | {None: BLANK}
    slots = torch.tensor([[places[path] for path in picture_slots(each.tweet, config)] for each in examples])
    if not config.pictures:
        return None, slots
    if not files:
        return torch.empty(0, PICTURES.crop, PICTURES.crop, 3, dtype=torch.uint8), slots
    return torch.from_numpy(load_pixels_of(files)), slots
