"""post-graphs, the generated data set of entities and the relations between them, both decided by pictures.

Every post has two names that its picture may relate, the first to the second. An ambiguous one of them has the type
that the relation of the picture asks for at its place, and where the picture shows no relation it is a thing. Names
that come after these two are familiar, and stand in no relation.
"""

from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np

from hvpnet.data.synthetic.figures import pick
from hvpnet.data.synthetic.photos import Draw, Photo, draw_photo, new_folder, take_photos
from hvpnet.data.synthetic.picture_tweets import (
    RELATIONS,
    Sizes,
    write_entity_rows,
    write_relation_rows,
    write_relations,
)
from hvpnet.data.synthetic.tweet_text import FAMILIAR, Named, bio_tags, graph_tweet
from hvpnet_runtime.jsonl import json_line
from hvpnet_runtime.labels import NO_RELATION

ENDS = {
    "/per/loc/place_of_residence": ("PER", "LOC"),
    "/per/org/member_of": ("PER", "ORG"),
    "/per/per/couple": ("PER", "PER"),
    "/per/per/peer": ("PER", "PER"),
    NO_RELATION: ("MISC", "MISC"),
}
"""Types of the two names that a picture of a relation is about, unless they are familiar."""


def write_post_graphs(out: Path | str, sizes: Sizes | None = None, seed: int = 0, draw: Draw = draw_photo) -> Path:
    """Writes the data set: posts with all that is true of them, and what two models learn it from.

    `{split}.posts.jsonl` is what `hvpnet.data.read_posts` reads. `entities` and `relations` are folders that
    `load_split` reads, with the same pictures: the posts with their tags; and of every post the two names that the
    picture may relate, the same in the other direction, and one more pair at random where there are more names.

    The picture shows one of four relations or none, each as likely as any other, and the words are drawn without regard
    to it: a model that reads only them is at chance.

    Args:
        out: a folder that is new or empty.
        sizes: posts per split.
        seed: the same seed gives the same data; every split has a stream of its own.
        draw: makes the pictures.

    Returns:
        `out`.

    Raises:
        DataError: the folder is not empty.
    """
    out = new_folder(out)
    entities, relations = new_folder(out / "entities"), new_folder(out / "relations")
    write_relations(relations)
    for number, (split, size) in enumerate(asdict(sizes or Sizes()).items(), start=1):
        rng = np.random.default_rng([seed, number])
        photos = take_photos(entities, RELATIONS, size, number * 1_000_000, rng, draw)
        posts = [_Post(photo, *graph_tweet(rng)) for photo in photos]
        write_entity_rows(
            entities, split, [(each.photo, each.words, bio_tags(len(each.words), each.types)) for each in posts]
        )
        write_relation_rows(relations, split, [row for post in posts for row in post.rows(rng)])
        lines = [json_line({"id": row, **post.to_dict()}) for row, post in enumerate(posts)]
        (out / f"{split}.posts.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for folder in ("images", "crops"):
        copytree(entities / folder, relations / folder)
    return out


@dataclass(frozen=True)
class _Post:
    """A picture, words, and the names in them, of which the picture may relate the first to the second."""

    photo: Photo
    words: list[str]
    names: list[Named]

    @property
    def types(self) -> dict[Named, str]:
        """The type of every name, in order of appearance."""
        asked = dict(zip(self.names, ENDS[self.photo.kind], strict=False))
        return {named: FAMILIAR.get(named.name) or asked[named] for named in self.names}

    def rows(self, rng: np.random.Generator) -> list[tuple[Photo, list[str], Named, Named, str]]:
        """What a model of relations learns from the post: the pair, its reverse, and one more where there are more."""
        first, second, *_ = self.names
        others = [pair for pair in permutations(self.names, 2) if set(pair) != {first, second}]
        pairs = [(first, second), (second, first), *([pick(rng, tuple(others))] if others else [])]
        relations = (self.photo.kind, NO_RELATION, NO_RELATION)
        return [(self.photo, self.words, *pair, relation) for pair, relation in zip(pairs, relations, strict=False)]

    def to_dict(self) -> dict[str, Any]:
        """All that is true of the post, as JSON types."""
        is_related = self.photo.kind != NO_RELATION
        return {
            "words": self.words,
            "image": f"entities/images/{self.photo.image}",
            "objects": [f"entities/crops/{name}" for name in self.photo.crops],
            "entities": [{"start": each.start, "end": each.end, "type": kind} for each, kind in self.types.items()],
            "triples": [{"head": 0, "relation": self.photo.kind, "tail": 1}] if is_related else [],
        }
