"""Posts in, entities and the relations between them out: two pipelines as one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Self

from hvpnet_runtime.answering import BATCH_SIZE, Answering, check_prepared, whole_number
from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BundleError, InputError, brief
from hvpnet_runtime.pipeline import MAX_TEXTS, Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.triples.agreement import Agreement, entity_types
from hvpnet_runtime.triples.pairs import MAX_PAIRS
from hvpnet_runtime.triples.posts import AskedPost, PostPreparer, PreparedPost, all_pairs, given_entities
from hvpnet_runtime.types import Entity, EntityResult, Rejection, Result, TripleResult, Tweet


class TriplePipeline(Answering[TripleResult]):
    """A pipeline of entities and one of relations, which share pictures and batches. Thread-safe.

    A picture is decoded once for both models, and each computes its prefix once, however many pairs the post has. Where
    objects of pairs are found by their names, the picture is decoded once more, and one search of it finds those of
    all. Pairs of all posts of a batch are run together.

    Batches come one after the other, on a GPU too. The model of relations reads the pictures of posts with pairs alone,
    which are known only once the entities are: of two batches under way, timing would decide which of these pictures
    share a run, and with it the last digits of answers.

    Attributes:
        entities: what finds entities.
        relations: what tells relations.
        posts: makes of posts what both read.

    Args:
        entities: of a bundle for entities. Load it with `window=True`, or it does not read what lies beyond its piece
            budget.
        relations: of a bundle for relations. Of long posts it always reads the window around a pair.
        threshold: triples with a smaller score are dropped; see `hvpnet triples tune`.
        any_types: ask about, and answer with, relations whose names carry other types than head and tail have.
        max_pairs: pairs of one post that are asked about.

    Raises:
        InputError: a pipeline is for the other task, the relations' types are not those of the entities, or a number is
            impossible.
    """

    def __init__(
        self,
        entities: Pipeline,
        relations: Pipeline,
        *,
        threshold: float = 0.0,
        any_types: bool = False,
        max_pairs: int = MAX_PAIRS,
    ) -> None:
        agreement = check_bundles(entities.bundle, relations.bundle, any_types=any_types)
        super().__init__(entities.threads, 1)
        self.entities, self.relations = entities, relations
        self.posts = PostPreparer(
            entities.preparer,
            relations.preparer,
            agreement,
            max_pairs=whole_number("max_pairs", max_pairs, 1),
            threshold=share("threshold", threshold),
        )

    def prepare(self, tweet: Tweet) -> PreparedPost:
        """Tokenise one post and decode those of its pictures that not both caches know; see `Pipeline.prepare`.

        Raises:
            InputError: the post cannot be processed by one of the models.
            BackendError: a grounder failed.
        """
        return self.posts(tweet)

    def start(self, batch: Sequence[Prepared]) -> Callable[[], list[TripleResult]]:
        """See `Answering`. What is returned runs the pairs: which there are is known only then."""
        self._origin.check()
        check_prepared(batch, PreparedPost)
        finish = self.entities.start(batch)

        def rest() -> list[TripleResult]:
            return self._relate([post for post in batch if isinstance(post, PreparedPost)], finish())

        return rest

    def between(
        self, posts: Iterable[tuple[Tweet, Sequence[Entity]]], batch_size: int = BATCH_SIZE
    ) -> Iterator[TripleResult | Rejection]:
        """Relations between entities that are given instead of found: one result or rejection each, in order.

        Args:
            posts: and the entities of each, whose words count in the post's.
            batch_size: posts in one batch.

        Raises:
            InputError: the batch size is below 1.
            BackendError: a backend failed.
        """
        return self._between_all(posts, whole_number("batch_size", batch_size, 1))

    def _between_all(
        self, posts: Iterable[tuple[Tweet, Sequence[Entity]]], size: int
    ) -> Iterator[TripleResult | Rejection]:
        waiting: list[Rejection | tuple[PreparedPost, EntityResult]] = []
        for row, (tweet, entities) in enumerate(posts):
            try:
                post = self.prepare(tweet)
                waiting.append((post, given_entities(post, entities)))
            except InputError as error:
                waiting.append(Rejection.of(row, getattr(tweet, "id", None), error))
            if len(waiting) == size:
                yield from self._outcomes(waiting)
                waiting = []
        yield from self._outcomes(waiting)

    def _outcomes(
        self, waiting: Sequence[Rejection | tuple[PreparedPost, EntityResult]]
    ) -> Iterator[TripleResult | Rejection]:
        good = [each for each in waiting if not isinstance(each, Rejection)]
        results = iter(self._relate([post for post, _ in good], [found for _, found in good]))
        return (each if isinstance(each, Rejection) else next(results) for each in waiting)

    def _relate(self, posts: Sequence[PreparedPost], found: Sequence[Result]) -> list[TripleResult]:
        """Ask about the pairs of all posts together, as many at a time as fill a run of the text graph.

        Where pictures are searched for pairs, those of the whole batch are searched ahead.
        """
        results: list[TripleResult] = []
        asked: list[AskedPost] = []
        with (
            ThreadPoolExecutor(MAX_GROUNDED, "hvpnet-pairs-found") as threads,
            closing(self.posts.ask(posts, found, threads)) as known,  # or a failure waits for what is still searched
        ):
            for post in known:
                asked.append(post)
                if sum(len(each.pairs) for each in asked) >= MAX_TEXTS:
                    results += self._settle(asked)
                    asked = []
        return results + self._settle(asked)

    def _settle(self, asked: Sequence[AskedPost]) -> list[TripleResult]:
        """Run pairs, those of similar length beside each other."""
        pairs = all_pairs(asked)
        order = sorted(range(len(pairs)), key=lambda place: pairs[place].length)
        answers = dict(zip(order, self.relations.run([pairs[place] for place in order]), strict=True))
        return self.posts.settle_all(asked, [answers[place] for place in range(len(pairs))])

    @property
    def bundle(self) -> Bundle:
        """The bundle of entities, whose objects answers list."""
        return self.entities.bundle

    @property
    def backends(self) -> tuple[str, ...]:
        """See `Answering`."""
        return tuple(dict.fromkeys((*self.entities.backends, *self.relations.backends)))

    def forget(self) -> None:
        """See `Answering`."""
        self.entities.forget()
        self.relations.forget()

    @property
    def without_objects(self) -> int:
        """See `Pipeline.without_objects`."""
        return self.posts.without_objects

    def warm_up(self) -> None:
        """See `Pipeline.warm_up`.

        Raises:
            BackendError: a backend failed.
        """
        self.entities.warm_up()
        self.relations.warm_up()

    def close(self) -> None:
        """Close both pipelines."""
        with ExitStack() as held:
            held.callback(self.entities.close)
            held.callback(self.relations.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_bundles(entities: Bundle, relations: Bundle, *, any_types: bool = False) -> Agreement:
    """What the labels of two bundles say of each other.

    Raises:
        BundleError: a label of entities is none.
        InputError: one is for the other task, or the relations' types are not those of the entities.
    """
    for name, bundle, task in (("entities", entities, "ner"), ("relations", relations, "re")):
        if bundle.task != task:
            raise InputError(
                f"the bundle of {name}, {bundle.path}, is for the task {bundle.task}: give one for {task}, and mind"
                " the order: entities, then relations"
            )
    try:
        types = entity_types(entities.labels)
    except ValueError as error:
        raise BundleError(f"{entities.path}: {error}: export the checkpoint again with labels that are") from error
    return Agreement(relations.labels, types, any_types=any_types)


def share(name: str, value: object) -> float:
    """A number from 0 to 1.

    Raises:
        InputError: the value is none; the message calls it by this name.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, not {brief(value)}")
    return float(value)
