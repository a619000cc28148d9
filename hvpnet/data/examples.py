"""What a data set is made of: tweets with their gold tags, or with the gold relation of a marked pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hvpnet_runtime.bundle import MAX_OBJECTS, Task
from hvpnet_runtime.types import Tweet

SplitName: TypeAlias = Literal["train", "dev", "test"]

NER_LABELS = (
    "PAD", "O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "X", "[CLS]", "[SEP]",
)  # fmt: skip
"""The published labels by index; X marks the pieces of a word after its first."""


@dataclass(frozen=True)
class EntityExample:
    """A tweet with its named entities.

    Attributes:
        tweet: `words`, `image` and `objects` are given as read; `id` is its position in the text file, from 0.
        tags: one BIO tag per word.
    """

    tweet: Tweet
    tags: tuple[str, ...]


@dataclass(frozen=True)
class RelationExample:
    """A tweet with the relation between its two marked entities.

    Attributes:
        tweet: as in `EntityExample`, with `head` and `tail`.
        relation: the relation's name, "None" for no relation.
    """

    tweet: Tweet
    relation: str


Example: TypeAlias = EntityExample | RelationExample


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        task: "ner" (all examples are `EntityExample`) or "re" (all are `RelationExample`).
        examples: in the order of the text file.
        relations: the relation names by index; None for "ner".
        has_pictures: False if the picture folder is absent, and then no tweet has an image or objects.
    """

    task: Task
    examples: tuple[Example, ...]
    relations: tuple[str, ...] | None
    has_pictures: bool

    @property
    def counts(self) -> dict[str, int]:
        """Tweets, and the files of their whole pictures and of the crops that a model reads, each counted once."""
        return count_files([example.tweet for example in self.examples])

    @property
    def summary(self) -> str:
        """The counts in words."""
        return in_words(self.counts)


def count_files(tweets: Sequence[Tweet]) -> dict[str, int]:
    """Tweets, and the files of their whole pictures and of the crops that a model reads, each counted once."""
    pictures = {tweet.image for tweet in tweets if isinstance(tweet.image, Path)}
    crops = {crop for tweet in tweets for crop in (tweet.objects or ())[:MAX_OBJECTS] if isinstance(crop, Path)}
    return {"tweets": len(tweets), "pictures": len(pictures), "crops": len(crops)}


def in_words(counts: Mapping[str, int]) -> str:
    """Counts by name, as a list."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())
