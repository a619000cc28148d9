"""picture-tweets, the generated data set: short tweets that only their pictures disambiguate."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hvpnet.data.synthetic.photos import Draw, Photo, draw_photo, new_folder, take_photos
from hvpnet.data.synthetic.tweet_text import Named, entity_tweet, relation_tweet, word_list
from hvpnet_runtime.bundle import Task

TYPES = ("PER", "LOC", "ORG", "MISC")
RELATIONS = ("/per/loc/place_of_residence", "/per/org/member_of", "/per/per/couple", "/per/per/peer", "None")


@dataclass(frozen=True)
class Sizes:
    """Tweets per split."""

    train: int = 1600
    dev: int = 200
    test: int = 400


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
    out = new_folder(out)
    if task == "re":
        write_relations(out)
    for number, (split, size) in enumerate(asdict(sizes or Sizes()).items(), start=1):
        rng = np.random.default_rng([seed, number])
        photos = take_photos(out, TYPES if task == "ner" else RELATIONS, size, number * 1_000_000, rng, draw)
        if task == "ner":
            write_entity_rows(out, split, [(photo, *entity_tweet(photo.kind, rng)) for photo in photos])
        else:
            write_relation_rows(out, split, [(photo, *relation_tweet(rng), photo.kind) for photo in photos])
    return out


def write_entity_rows(out: Path, split: str, rows: Sequence[tuple[Photo, Sequence[str], Sequence[str]]]) -> None:
    """Writes a split's text and crops: of every tweet its picture, words and BIO tags."""
    lines = [
        "\n".join([f"IMGID:{photo.number}", *map("\t".join, zip(words, tags, strict=True)), ""])
        for photo, words, tags in rows
    ]
    crops = {photo.image: photo.crops for photo, _, _ in rows if photo.crops}
    _write_split(out, split, "\n".join(lines), crops)


def write_relation_rows(out: Path, split: str, rows: Sequence[tuple[Photo, list[str], Named, Named, str]]) -> None:
    """Writes a split's text and crops: of every row its picture, words, head, tail and relation."""
    lines = [f"{_relation_row(*row)}\n" for row in rows]
    crops = {str(number): photo.crops for number, (photo, *_) in enumerate(rows) if photo.crops}
    _write_split(out, split, "".join(lines), crops)


def write_relations(out: Path) -> None:
    """Writes the relations by index."""
    indices = {relation: index for index, relation in enumerate(RELATIONS)}
    (out / "relations.json").write_text(json.dumps(indices) + "\n", encoding="utf-8")


def write_tokenizer(out: Path | str) -> Path:
    """Writes `word_list` as the vocab.txt of an uncased BERT tokenizer for these tweets.

    Returns:
        `out`, its folder.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.txt").write_text("".join(f"{word}\n" for word in word_list()), encoding="utf-8")
    return out


def _write_split(out: Path, split: str, text: str, crops: dict[str, tuple[str, ...]]) -> None:
    (out / f"{split}.txt").write_text(text, encoding="utf-8")
    (out / f"{split}_objects.json").write_text(json.dumps(crops, indent=1) + "\n", encoding="utf-8")


def _relation_row(photo: Photo, words: list[str], head: Named, tail: Named, relation: str) -> dict[str, Any]:
    return {
        "token": words,
        "h": {"name": head.name, "pos": [head.start, head.end]},
        "t": {"name": tail.name, "pos": [tail.start, tail.end]},
        "img_id": photo.image,
        "relation": relation,
    }
