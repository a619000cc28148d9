"""picture-tweets, the generated data set: short tweets that only their pictures disambiguate."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from hvpnet.data.synthetic.figures import pick
from hvpnet.data.synthetic.scenes import Drawing, draw_scene
from hvpnet.data.synthetic.tweet_text import entity_tweet, relation_tweet, word_list
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import Task

TYPES = ("PER", "LOC", "ORG", "MISC")
RELATIONS = ("/per/loc/place_of_residence", "/per/org/member_of", "/per/per/couple", "/per/per/peer", "None")

Draw: TypeAlias = Callable[[str, np.random.Generator], Drawing]
"""Draws a picture that shows an entity type or a relation; a crop is written for each of its boxes."""

_RETWEETS = 0.1
_CROP_SIDE = 112
_JPEG_QUALITY = 80


@dataclass(frozen=True)
class Sizes:
    """Tweets per split."""

    train: int = 1600
    dev: int = 200
    test: int = 400


def draw_photo(kind: str, rng: np.random.Generator) -> Drawing:
    """A scene of which any number of boxes are given, the one that shows its meaning first, and often none."""
    drawing = draw_scene(kind, rng)
    return replace(drawing, boxes=drawing.boxes[: rng.integers(len(drawing.boxes) + 1)])


def write_picture_tweets(
    out: Path | str, task: Task = "ner", sizes: Sizes | None = None, seed: int = 0, draw: Draw = draw_photo
) -> Path:
    """Writes the data set in the layout that `load_split` reads.

    The picture shows one of four entity types (or five relations), each as likely as any other, and the words are
    drawn without regard to it: a model that reads only them is at chance. One tweet in ten shows an earlier picture
    of its split again, as retweets do.

    Args:
        out: a folder that is new or empty.
        task: entities or relations.
        sizes: tweets per split.
        seed: the same seed gives the same data; every split has a stream of its own.
        draw: makes the pictures.

    Returns:
        `out`.

    Raises:
        DataError: the folder is not empty.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty: choose a new folder for picture-tweets, or remove it")
    for folder in (out, out / "images", out / "crops"):
        folder.mkdir(parents=True, exist_ok=True)
    if task == "re":
        indices = {relation: index for index, relation in enumerate(RELATIONS)}
        (out / "relations.json").write_text(json.dumps(indices) + "\n", encoding="utf-8")
    for number, (split, size) in enumerate(asdict(sizes or Sizes()).items(), start=1):
        rng = np.random.default_rng([seed, number])
        photos = _photos(out, TYPES if task == "ner" else RELATIONS, size, number * 1_000_000, rng, draw)
        if task == "ner":
            text = "\n".join(_entity_block(photo, rng) for photo in photos)
            crops = {photo.image: photo.crops for photo in photos if photo.crops}
        else:
            text = "".join(_relation_line(photo, rng) for photo in photos)
            crops = {str(row): photo.crops for row, photo in enumerate(photos) if photo.crops}
        (out / f"{split}.txt").write_text(text, encoding="utf-8")
        (out / f"{split}_objects.json").write_text(json.dumps(crops, indent=1) + "\n", encoding="utf-8")
    return out


def write_tokenizer(out: Path | str) -> Path:
    """Writes `word_list` as the vocab.txt of an uncased BERT tokenizer for these tweets.

    Returns:
        `out`, its folder.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.txt").write_text("".join(f"{word}\n" for word in word_list()), encoding="utf-8")
    return out


@dataclass(frozen=True)
class _Photo:
    """A picture on disk: its number, what it shows, and the file names of its crops."""

    number: int
    kind: str
    crops: tuple[str, ...]

    @property
    def image(self) -> str:
        return f"{self.number}.jpg"


def _photos(
    out: Path, kinds: tuple[str, ...], count: int, first_number: int, rng: np.random.Generator, draw: Draw
) -> list[_Photo]:
    """The picture of every tweet: most are drawn, and some are earlier ones once more."""
    drawn: list[_Photo] = []
    shown: list[_Photo] = []
    for _ in range(count):
        if drawn and rng.random() < _RETWEETS:
            shown.append(pick(rng, tuple(drawn)))
        else:
            kind = pick(rng, kinds)
            drawn.append(_save(out, kind, first_number + len(drawn), draw(kind, rng)))
            shown.append(drawn[-1])
    return shown


def _save(out: Path, kind: str, number: int, drawing: Drawing) -> _Photo:
    crops = tuple(f"{number}_pred_yolo_crop_{index}.png" for index in range(len(drawing.boxes)))
    photo = _Photo(number, kind, crops)
    drawing.picture.save(out / "images" / photo.image, quality=_JPEG_QUALITY)
    for name, box in zip(photo.crops, drawing.boxes, strict=True):
        crop = drawing.picture.crop(box)
        crop.thumbnail((_CROP_SIDE, _CROP_SIDE), Image.Resampling.BOX)
        crop.save(out / "crops" / name)
    return photo


def _entity_block(photo: _Photo, rng: np.random.Generator) -> str:
    words, tags = entity_tweet(photo.kind, rng)
    return "\n".join([f"IMGID:{photo.number}", *map("\t".join, zip(words, tags, strict=True)), ""])


def _relation_line(photo: _Photo, rng: np.random.Generator) -> str:
    words, head, tail = relation_tweet(rng)
    row = {
        "token": words,
        "h": {"name": head.name, "pos": [head.start, head.end]},
        "t": {"name": tail.name, "pos": [tail.start, tail.end]},
        "img_id": photo.image,
        "relation": photo.kind,
    }
    return f"{row}\n"
