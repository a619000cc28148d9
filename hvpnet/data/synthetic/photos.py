"""The pictures of generated posts on disk, and their crops."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from hvpnet.data.synthetic.figures import pick
from hvpnet.data.synthetic.scenes import Drawing, draw_scene
from hvpnet.errors import DataError

Draw: TypeAlias = Callable[[str, np.random.Generator], Drawing]
"""Draws a picture that shows an entity type or a relation; a crop is written for each of its boxes."""

_RETWEETS = 0.1
_CROP_SIDE = 112
_JPEG_QUALITY = 80


def draw_photo(kind: str, rng: np.random.Generator) -> Drawing:
    """A scene of which any number of boxes are given, the one that shows its meaning first, and often none."""
    drawing = draw_scene(kind, rng)
    return replace(drawing, boxes=drawing.boxes[: rng.integers(len(drawing.boxes) + 1)])


def new_folder(out: Path | str) -> Path:
    """A folder for a data set.

    Args:
        out: is new or empty.

    Raises:
        DataError: it is not empty.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty: choose a new folder for the data set, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    return out


@dataclass(frozen=True)
class Photo:
    """A picture on disk: its number, what it shows, and the file names of its crops."""

    number: int
    kind: str
    crops: tuple[str, ...]

    @property
    def image(self) -> str:
        """Its file name."""
        return f"{self.number}.jpg"


def take_photos(
    out: Path, kinds: tuple[str, ...], count: int, first_number: int, rng: np.random.Generator, draw: Draw
) -> list[Photo]:
    """The picture of every tweet: most are drawn, and some are earlier ones once more.

    Args:
        out: gets `images` and `crops`.
        kinds: what a picture may show, each as likely as any other.
        count: tweets.
        first_number: of the pictures, whose names are numbers.
        rng: decides on everything else.
        draw: makes the pictures.
    """
    for folder in ("images", "crops"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    drawn: list[Photo] = []
    shown: list[Photo] = []
    for _ in range(count):
        if drawn and rng.random() < _RETWEETS:
            shown.append(pick(rng, tuple(drawn)))
        else:
            kind = pick(rng, kinds)
            drawn.append(_save(out, kind, first_number + len(drawn), draw(kind, rng)))
            shown.append(drawn[-1])
    return shown


def _save(out: Path, kind: str, number: int, drawing: Drawing) -> Photo:
    crops = tuple(f"{number}_pred_yolo_crop_{index}.png" for index in range(len(drawing.boxes)))
    photo = Photo(number, kind, crops)
    drawing.picture.save(out / "images" / photo.image, quality=_JPEG_QUALITY)
    for name, box in zip(photo.crops, drawing.boxes, strict=True):
        crop = drawing.picture.crop(box)
        crop.thumbnail((_CROP_SIDE, _CROP_SIDE), Image.Resampling.BOX)
        crop.save(out / "crops" / name)
    return photo
