"""One post, from what is given to the pairs that the model of relations reads, and from its answers to triples.

The answers are those that the pipeline of relations gives to the same post with that head and tail, windows for long
texts included. Only what does not depend on the pair is done once: words are tokenised once, and pictures read once.
"""

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Self

from hvpnet_runtime.errors import InputError, TextError
from hvpnet_runtime.labels import NO_RELATION
from hvpnet_runtime.preprocessing.encode_text import EntityWindow
from hvpnet_runtime.preprocessing.prepare import Pictures, Prepared, Preparer
from hvpnet_runtime.triples.agreement import Agreement
from hvpnet_runtime.triples.pairs import choose_pairs, same_node
from hvpnet_runtime.types import (
    Entity,
    EntityResult,
    FoundObject,
    Mention,
    RelationResult,
    Result,
    Triple,
    TripleResult,
    Tweet,
)


@dataclass(frozen=True)
class PreparedPost(Prepared):
    """One post, ready for the model of entities, and for its pairs.

    Attributes:
        pieces: of each word, as the model of relations reads it.
        pair_pictures: what the model of relations reads with every pair; None where each pair has objects of its own.
        pair_objects: found in the picture for it.
    """

    pieces: list[list[int]] = field(default_factory=list)
    pair_pictures: Pictures | None = None
    pair_objects: tuple[FoundObject, ...] | None = None

    @property
    def nbytes(self) -> int:
        """See `Prepared`; a picture that both models read counts once."""
        pictures = {id(each): each.nbytes for each in (*self.pictures, *(self.pair_pictures or ())) if each is not None}
        return sum(pictures.values())

    def lightened(self) -> Self:
        """See `Prepared`; where each pair has objects of its own, the picture is still to be searched for them."""
        return self if self.pair_pictures is None else super().lightened()


@dataclass(frozen=True)
class AskedPost:
    """A post whose entities are known, and what is asked about them.

    Attributes:
        entities: of the post.
        pairs: head and tail by index.
        prepared: a pair each, for the model of relations.
        cut_pairs: how many more there are.
    """

    entities: EntityResult
    pairs: tuple[tuple[int, int], ...]
    prepared: tuple[Prepared, ...]
    cut_pairs: int


class PostPreparer:
    """Prepares posts for two models. Thread-safe.

    Args:
        entities: of the one.
        relations: of the other.
        agreement: of their labels.
        max_pairs: of one post.
        threshold: triples with a smaller score are dropped.
    """

    def __init__(
        self, entities: Preparer, relations: Preparer, agreement: Agreement, *, max_pairs: int, threshold: float
    ) -> None:
        reader = entities.reader.together(relations.reader)
        if reader is not None:  # or each decodes a picture in its own way
            entities, relations = entities.with_reader(reader), relations.with_reader(reader)
        self._entities, self._relations, self._agreement = entities, relations, agreement
        self._max_pairs, self._threshold = max_pairs, threshold

    @property
    def without_objects(self) -> int:
        """See `Pipeline.without_objects`."""
        return self._entities.without_objects

    def forget(self) -> None:
        """See `Preparer.forget`."""
        self._entities.forget()
        self._relations.forget()

    def __call__(self, post: Tweet) -> PreparedPost:
        """Prepare one post; its `head` and `tail` are not read.

        Raises:
            InputError: one of the two models cannot read it.
            BackendError: a grounder failed.
        """
        prepared = self._entities(post)
        pieces = self._relations.encoder.relation_pieces([word.text for word in prepared.words])
        made = PreparedPost(**vars(prepared), pieces=pieces)
        if post.image is not None and self._relations.finds_by_text(post):
            self._relations.check_picture(post.image)  # or it is rejected
            return made
        pictures, objects = self._relations.pictures(post, prepared.words, ())
        return replace(made, pair_pictures=pictures, pair_objects=objects)

    def ask(
        self, posts: Sequence[PreparedPost], found: Sequence[Result], threads: Executor | None = None
    ) -> Generator[AskedPost, None, None]:
        """The pairs of posts.

        Args:
            posts: as they were prepared.
            found: the entities of each.
            threads: search the pictures of several posts at the same time, for the pairs that have objects of their
                own: they share runs of the grounder then. By default one post follows the other, as they are read.

        Raises:
            BackendError: a grounder failed.
            PictureError: the file of a picture that is searched has gone since the post was prepared.
        """
        known = [(post, each) for post, each in zip(posts, found, strict=True) if isinstance(each, EntityResult)]
        at_once = threads is not None and any(post.pair_pictures is None for post in posts)
        try:
            yield from (threads.map if threads is not None and at_once else map)(lambda each: self._ask(*each), known)
        finally:
            self._relations.forget()

    def settle(self, asked: AskedPost, answers: Iterable[RelationResult]) -> TripleResult:
        """The triples of a post, from the answers to its pairs, in their order.

        Between two nodes, which may stand in the post more than once, all triples have the direction of the best.
        """
        entities, found = asked.entities.entities, list[Triple]()
        for (head, tail), answer in zip(asked.pairs, answers, strict=True):
            ends = entities[head], entities[tail]
            relation = self._agreement.choose(answer.probabilities, ends[0].type, ends[1].type)
            score = answer.probabilities[relation]
            if relation != NO_RELATION and score >= self._threshold:
                found.append(Triple(ends[0], relation, ends[1], score, answer.probabilities))
        directions = [(same_node(each.head), same_node(each.tail)) for each in found]
        best: dict[frozenset[tuple[str, str]], int] = {}
        for place, triple in enumerate(found):
            nodes = frozenset(directions[place])
            if nodes not in best or triple.score > found[best[nodes]].score:
                best[nodes] = place
        kept = {directions[place] for place in best.values()}
        triples = tuple(triple for triple, direction in zip(found, directions, strict=True) if direction in kept)
        of = asked.entities
        return TripleResult(of.id, entities, triples, of.cut_words, asked.cut_pairs, of.objects)

    def settle_all(self, asked: Sequence[AskedPost], answers: Iterable[Result]) -> list[TripleResult]:
        """The triples of posts, from the answers to all their pairs, in order."""
        told = (answer for answer in answers if isinstance(answer, RelationResult))
        return [self.settle(each, list(islice(told, len(each.pairs)))) for each in asked]

    def _ask(self, post: PreparedPost, found: EntityResult) -> AskedPost:
        entities = found.entities
        chosen, cut = choose_pairs(entities, self._agreement.asks, self._max_pairs)
        windows: dict[tuple[int, int], EntityWindow] = {}
        for pair in chosen:
            spans = [(entities[place].first_word, entities[place].last_word + 1) for place in pair]
            try:
                encoding = self._relations.encoder.mark_pair(post.pieces, *spans, window=True, without_middle=True)
            except TextError:  # head and tail alone are too long to be read
                cut += 1
            else:
                windows[pair] = EntityWindow(encoding, 0, (0, len(post.words)))
        ends = [[_mention(entities[place]) for place in pair] for pair in windows]
        prepared = [
            Prepared(post.tweet, post.text, post.words, (window,), tuple(mentions), *read)
            for window, mentions, read in zip(windows.values(), ends, self._read(post, ends), strict=True)
        ]
        return AskedPost(found, tuple(windows), tuple(prepared), cut)

    def _read(
        self, post: PreparedPost, pairs: Sequence[Sequence[Mention]]
    ) -> Sequence[tuple[Pictures, tuple[FoundObject, ...] | None]]:
        """What the model of relations reads with each pair, and the objects that were found for it."""
        if post.pair_pictures is not None:
            return [(post.pair_pictures, post.pair_objects)] * len(pairs)
        image = post.tweet.image
        return self._relations.pictures_found(image, post.words, pairs) if pairs and image is not None else []


def all_pairs(asked: Iterable[AskedPost]) -> list[Prepared]:
    """What the model of relations reads of all posts."""
    return [pair for each in asked for pair in each.prepared]


def _mention(entity: Entity) -> Mention:
    return Mention(entity.text, entity.start, entity.end)


def given_entities(post: PreparedPost, entities: Sequence[Entity]) -> EntityResult:
    """Entities that are known, as if they had been found.

    Raises:
        InputError: one lies outside the words of the post.
    """
    for entity in entities:
        if not 0 <= entity.first_word <= entity.last_word < len(post.words):
            raise InputError(f"the entity {entity} lies outside the post's {len(post.words)} words")
    return EntityResult(post.tweet.id, tuple(entities), (), post.cut_words, post.objects)
