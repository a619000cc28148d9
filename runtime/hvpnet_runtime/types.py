"""What goes into the pipeline and what comes out: plain frozen dataclasses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from hvpnet_runtime.errors import one_line

Picture: TypeAlias = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
"""A path, the bytes of an image file, a PIL image, or an RGB array uint8 [height, width, 3]."""

Box: TypeAlias = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the image, right and bottom exclusive."""

Span: TypeAlias = tuple[int, int]
"""[start, end), in words or in characters."""

ObjectSource: TypeAlias = Literal["given", "found", "none"]
"""Which objects of a tweet a pipeline reads; what is not there is a blank picture to the model.

The default, None, reads those that it gives as `objects` or `boxes`, where an empty list says that there are none; and
where it gives neither, those that the bundle's grounder finds in its image, if the bundle has one. `given` reads only
those that it gives, and the grounder is not loaded; `found` those that are found in its image, whatever it gives;
`none` no objects at all.
"""

Progress: TypeAlias = Callable[[str], None]
"""What long work tells each step as it begins."""


@dataclass(frozen=True)
class Tweet:
    """One post: `text` or `words`, and what belongs to it.

    Attributes:
        text: the raw text; split into words by the runtime. Give `text` or `words`, not both.
        words: the text already split into words, as in the published data.
        image: the whole picture. Without one, its prefix is that of the blank picture.
        objects: object crops, most important first; the model reads the first three (published code). An empty list
            says that there are none.
        boxes: object boxes, a list or an array [N, 4], cropped out of `image` by the runtime. Give `objects` or
            `boxes`, not both. With neither, objects are found in the image where the bundle has a grounder, and else
            there are none.
        head: relation extraction: the head entity [start, end), in characters (code points) of `text`, or in `words`.
        tail: relation extraction: the tail entity, in the same way.
        id: anything; the answer carries it.
    """

    text: str | None = None
    words: Sequence[str] | None = None
    image: Picture | None = None
    objects: Sequence[Picture] | None = None
    boxes: Sequence[Box] | npt.NDArray[np.number] | None = None
    head: Span | None = None
    tail: Span | None = None
    id: Any = None


@dataclass(frozen=True)
class Entity:
    """A typed span of words.

    Attributes:
        text: the characters [start, end) of the text.
        type: the entity type, for instance PER.
        start: first character; offsets count in `text`, or in the words joined by one space when words were given.
        end: one past the last character.
        first_word: index of the first word.
        last_word: index of the last word, inclusive.
        score: the CRF's marginal probability of the span's tags, in [0, 1].
    """

    text: str
    type: str
    start: int
    end: int
    first_word: int
    last_word: int
    score: float

    def to_dict(self) -> dict[str, Any]:
        """The entity as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Mention:
    """The head or the tail of a relation, as the model read it.

    Attributes:
        text: the characters [start, end) of the text.
        start: first character; offsets count in `text`, or in the words joined by one space when words were given.
        end: one past the last character.
    """

    text: str
    start: int
    end: int

    def to_dict(self) -> dict[str, Any]:
        """The mention as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class FoundObject:
    """An object that the grounder found in a tweet's picture.

    Attributes:
        box: (x0, y0, x1, y1) in whole pixels of the picture, right and bottom exclusive.
        query: what was looked for.
        score: how well the box fits it, in [0, 1]; scores of different grounders cannot be compared.
    """

    box: tuple[int, int, int, int]
    query: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON types."""
        return {"box": list(self.box), "query": self.query, "score": self.score}


@dataclass(frozen=True)
class EntityResult:
    """Named entities of one tweet.

    Attributes:
        id: the tweet's id.
        entities: in order of appearance.
        tags: one BIO tag per word; words without a prediction are O.
        cut_words: how many words lay beyond the piece budget and so have no prediction.
        objects: found in the picture, in the order in which the model read them; given as `boxes` of the tweet, they
            lead to the same answer. None where the pipeline finds no objects.
    """

    id: Any
    entities: tuple[Entity, ...]
    tags: tuple[str, ...]
    cut_words: int
    objects: tuple[FoundObject, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; `id` as it was given."""
        entities = [entity.to_dict() for entity in self.entities]
        values = {"id": self.id, "entities": entities, "tags": list(self.tags), "cut_words": self.cut_words}
        return values | _objects(self.objects)


@dataclass(frozen=True)
class RelationResult:
    """The relation of the marked pair of one tweet.

    Attributes:
        id: the tweet's id.
        relation: the most probable relation.
        score: its softmax probability.
        head: the marked head.
        tail: the marked tail.
        cut_words: how many words lay beyond the piece budget and were not read.
        objects: as of `EntityResult`.
        probabilities: of every relation by name, the most probable first; a client has those that it asked for.
    """

    id: Any
    relation: str
    score: float
    head: Mention
    tail: Mention
    cut_words: int
    objects: tuple[FoundObject, ...] | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict, compare=False)

    def to_dict(self, top_k: int = 0) -> dict[str, Any]:
        """The result as JSON types; `id` as it was given, and the probabilities of the `top_k` most probable."""
        marked = {"head": self.head.to_dict(), "tail": self.tail.to_dict()}
        values = {"id": self.id, "relation": self.relation, "score": self.score, **marked, "cut_words": self.cut_words}
        if top_k:
            values["probabilities"] = dict(islice(self.probabilities.items(), top_k))
        return values | _objects(self.objects)


Result: TypeAlias = EntityResult | RelationResult


@dataclass(frozen=True)
class Triple:
    """A relation between two entities of a post.

    Attributes:
        head: the entity it begins at.
        relation: the most probable of those that the entities' types allow; never the none class.
        tail: the entity it leads to.
        score: the relation's softmax probability, given the pair, in [0, 1].
        probabilities: of every relation by name, the most probable first, whether the types allow it or not.
    """

    head: Entity
    relation: str
    tail: Entity
    score: float
    probabilities: Mapping[str, float] = field(default_factory=dict, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The triple as JSON types."""
        ends = {"head": self.head.to_dict(), "relation": self.relation, "tail": self.tail.to_dict()}
        return {**ends, "score": self.score, "probabilities": dict(self.probabilities)}


@dataclass(frozen=True)
class TripleResult:
    """Entities of one post, and the relations between them.

    Attributes:
        id: the post's id.
        entities: in order of appearance.
        triples: in the order of their heads, then of their tails; one at most for any two entities.
        cut_words: how many words lay beyond the piece budget and so have no prediction.
        cut_pairs: how many pairs of entities were not asked about, because the post has more than the limit, or because
            head and tail alone take more pieces than the model reads.
        objects: as of `EntityResult`: those that the model of entities read.
    """

    id: Any
    entities: tuple[Entity, ...]
    triples: tuple[Triple, ...]
    cut_words: int
    cut_pairs: int
    objects: tuple[FoundObject, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; `id` as it was given."""
        found = {name: [each.to_dict() for each in getattr(self, name)] for name in ("entities", "triples")}
        values = {"id": self.id, **found, "cut_words": self.cut_words, "cut_pairs": self.cut_pairs}
        return values | _objects(self.objects)


def _objects(found: tuple[FoundObject, ...] | None) -> dict[str, Any]:
    """The key of an answer that lists them; none where none are looked for."""
    return {} if found is None else {"objects": [each.to_dict() for each in found]}


@dataclass(frozen=True)
class Rejection:
    """Why a tweet has no result: it cannot be processed as given.

    Attributes:
        row: its place among the tweets, from 0; in a file, its line or row from 1.
        id: the tweet's id, where it could be read.
        type: name of the exception.
        message: what the exception says, in one line.
    """

    row: int
    id: Any
    type: str
    message: str

    @classmethod
    def of(cls, row: int, id: Any, error: Exception) -> "Rejection":  # noqa: A002, ANN401  the field's name
        """From the exception."""
        return cls(row, id, type(error).__name__, one_line(error))

    def to_dict(self) -> dict[str, Any]:
        """The rejection as JSON types; its key `error` tells it from a result."""
        return {"row": self.row, "id": self.id, "error": {"type": self.type, "message": self.message}}
