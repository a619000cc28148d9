"""Picture features of a data set, computed once: the ResNet is frozen, so only what follows it is trained."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from hvpnet.errors import DataError
from hvpnet.modeling.config import HVPNeTConfig
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.visual_prefix import PICTURES, blank_picture, normalise
from hvpnet_runtime.bundle import MAX_OBJECTS
from hvpnet_runtime.preprocessing.pictures import load_pixels
from hvpnet_runtime.types import Tweet

PICTURES_PER_RUN = 32
"""Bounds the activations of the ResNet."""

_BLANK = 0  # its row in the table


def picture_slots(tweet: Tweet, config: HVPNeTConfig) -> tuple[Path | None, ...]:
    """The pictures that the model reads of a tweet: the whole one, the first three objects, and None for each blank.

    `only_obj` has no whole picture and `text_only` none at all; a tweet without an image has a blank whole picture.

    Raises:
        DataError: a picture is not a file, or the tweet has boxes; data sets have files of crops.
    """
    slots = config.pictures
    given = [tweet.image] if slots > MAX_OBJECTS else []
    given += (tweet.objects or ())[:MAX_OBJECTS] if slots else ()
    if tweet.boxes or not all(picture is None or isinstance(picture, str | Path) for picture in given):
        raise DataError(f"tweet {tweet.id}: pictures of a data set are files, and objects are crops, not boxes")
    pictures = [None if picture is None else Path(str(picture)) for picture in given]
    return (*pictures, *[None] * (slots - len(pictures)))


def picture_files(tweets: Iterable[Tweet], config: HVPNeTConfig) -> list[Path]:
    """The distinct picture files that the model reads of the tweets, in order of appearance."""
    slots = (path for tweet in tweets for path in picture_slots(tweet, config))
    return [path for path in dict.fromkeys(slots) if path is not None]


def load_pixels_of(paths: Sequence[Path]) -> npt.NDArray[np.uint8]:
    """Pixels as the runtime prepares them, uint8 [N, 224, 224, 3].

    Raises:
        PictureError: a file is missing or no picture.
    """
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda path: load_pixels(path, PICTURES), paths)))


def load_images(paths: Sequence[Path]) -> Iterator[Tensor]:
    """Normalised pictures in batches, float32 [N, 3, 224, 224] each; errors as in `load_pixels_of`."""
    for start in range(0, len(paths), PICTURES_PER_RUN):
        images = normalise(torch.from_numpy(load_pixels_of(paths[start : start + PICTURES_PER_RUN])))
        yield images.to(memory_format=torch.channels_last)  # convolutions on a CPU are a third faster so


class PictureFeatures:
    """The pooled ResNet pyramid of every distinct picture file, and of the blank picture.

    They stay in memory: 61 KB a picture with ResNet-50 (3840 channels of 2 x 2 float32), so at most 2 GB for
    Twitter-2015 (8,257 tweets with a picture and up to three crops each).

    Attributes:
        table: [1 + pictures, channels, 2, 2], the blank picture first; empty for `text_only`.
    """

    def __init__(self, config: HVPNeTConfig, paths: Sequence[Path], table: Tensor) -> None:
        self.table = table
        self._config = config
        self._rows = {path: row for row, path in enumerate(paths, start=_BLANK + 1)}

    @classmethod
    @torch.no_grad()
    def compute(cls, model: HVPNeT, tweets: Iterable[Tweet], *, progress: bool = True) -> Self:
        """Runs the model's ResNet, in evaluation mode, over each picture file of the tweets once.

        Args:
            model: on any device; the features are kept on the CPU.
            tweets: their pictures are files.
            progress: show a bar, if stderr is a terminal.

        Raises:
            PictureError: a file is missing or no picture.
        """
        config = model.config
        if not config.pictures:
            return cls(config, (), torch.empty(0))
        paths = picture_files(tweets, config)
        image_model = model.image_model.eval()
        device = next(image_model.parameters()).device
        table = torch.empty(1 + len(paths), config.feature_channels, 2, 2)  # [1 + pictures, channels, 2, 2]
        table[_BLANK] = image_model(blank_picture(device))[0]
        start = 1
        with tqdm(total=len(paths), desc="pictures", disable=None if progress else True) as bar:
            for images in load_images(paths):
                table[start : start + len(images)] = image_model(images.to(device))
                start += len(images)
                bar.update(len(images))
        return cls(config, paths, table)

    def prefix(self, model: HVPNeT, tweets: Sequence[Tweet]) -> Tensor | None:
        """Prefixes of a batch, [B, pictures, layers, 2, prefix_length * hidden], on the model's device.

        What a picture adds does not depend on the others, so each distinct picture is projected once. None for
        `text_only`.
        """
        if not self._config.pictures:
            return None
        rows = torch.tensor([self.rows_of(tweet) for tweet in tweets])  # [B, pictures]
        distinct, places = rows.unique(return_inverse=True)  # [N], [B, pictures]
        device = next(model.parameters()).device
        prefix: Tensor = model.prefix(self.table[distinct].to(device))  # [N, layers, 2, prefix_length * hidden]
        # Unlike prefix[places], index_select adds up its gradients in a fixed order.
        rows_of_batch = prefix.index_select(0, places.flatten().to(device))  # [B * pictures, ...]
        return rows_of_batch.reshape(*places.shape, *prefix.shape[1:])

    def rows_of(self, tweet: Tweet) -> list[int]:
        """Where the tweet's pictures are in the table: whole picture, objects, blanks."""
        return [_BLANK if path is None else self._rows[path] for path in picture_slots(tweet, self._config)]
