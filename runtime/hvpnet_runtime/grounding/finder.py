"""Objects of a picture: searched for once, whatever tweets show it and however many threads ask."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from copy import copy
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends import Grounder
from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.bundle.grounder_spec import ADD_AGAIN
from hvpnet_runtime.errors import BackendError, InputError, brief
from hvpnet_runtime.grounding.pictures import fit
from hvpnet_runtime.grounding.queries import load_queries
from hvpnet_runtime.grounding.selection import select
from hvpnet_runtime.grounding.together import Together
from hvpnet_runtime.preprocessing.tweet_pictures import WholePicture
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.types import FoundObject, Mention

REMEMBERED = 16_384
"""Pictures whose objects are remembered, the last used ones; one takes about a kilobyte."""

_ROUNDING = 1e-3
"""How far a score may lie outside [0, 1]: the step between numbers of FP16 at 1."""

_Found: TypeAlias = tuple[FoundObject, ...]
_Floats: TypeAlias = npt.NDArray[np.float32]


class _Key(NamedTuple):
    """What the objects of a picture depend on: a result of another threshold is never taken for one of this."""

    picture: bytes
    queries: tuple[str, ...]
    threshold: float


class _Search(NamedTuple):
    """What one picture asks of the grounder: pixels uint8 [S, S, 3] and query vectors float32 [Q, D]."""

    pixels: npt.NDArray[np.uint8]
    queries: _Floats


class ObjectFinder:
    """Finds objects with a bundle's grounder. Thread-safe.

    Threads that search at the same time are answered by one run of the grounder, and its last digits may depend on how
    many pictures share a run; where that must not be, set `batch` to 1.

    Attributes:
        hits: pictures whose objects were known, or found by another thread meanwhile.
        misses: pictures that were searched.
        grounder: what runs the graphs.

    Args:
        bundle: a checked bundle with a grounder.
        grounder: of the bundle; closed with the finder.
        remembered: see `REMEMBERED`.

    Raises:
        BundleError: the bundle has no grounder, or its queries are damaged.
        MissingExtraError: a package that prepares pictures for this grounder, or makes queries of the text, is not
            installed.
    """

    def __init__(self, bundle: Bundle, grounder: Grounder, remembered: int = REMEMBERED) -> None:
        self._spec, self._most = bundle.grounder, bundle.manifest.limits.max_objects
        self.grounder, self._remembered = grounder, remembered
        fit(np.zeros((1, 1, 3), np.uint8), self._spec.kind, self._spec.size)  # which may need a package
        self._queries = load_queries(bundle, grounder)
        self._threshold = self._spec.threshold
        self._together: Together[_Search, tuple[_Floats, _Floats]] = Together(self._run, MAX_GROUNDED)
        self._known: OrderedDict[_Key, _Found] = OrderedDict()
        self._sought: dict[_Key, Future[_Found]] = {}
        self._lock, self._origin = Lock(), Origin()
        self.hits = self.misses = 0

    @property
    def batch(self) -> int:
        """Most pictures in one run of the grounder, from 1 to `MAX_GROUNDED`; another number is an `InputError`."""
        return self._together.most

    @batch.setter
    def batch(self, most: int) -> None:
        if type(most) is not int or not 1 <= most <= MAX_GROUNDED:
            raise InputError(f"batch must be a whole number from 1 to {MAX_GROUNDED}, not {brief(most)}")
        self._together.most = most

    @property
    def threshold(self) -> float:
        """Objects with a smaller score are dropped; by default that of the bundle."""
        return self._threshold

    @threshold.setter
    def threshold(self, least: float) -> None:
        self._threshold = least
        self.forget()

    def __call__(self, picture: WholePicture, words: Sequence[str], mentions: Sequence[Mention]) -> _Found:
        """Objects of a tweet's picture, the best first, at most as many as the model reads.

        Args:
            picture: decoded only if it was not searched for the same queries lately.
            words: of the tweet.
            mentions: head and tail of a relation; none for entities.

        Raises:
            PictureError: the picture cannot be decoded.
            BackendError: the grounder failed, for this picture or one that shared its run, or it answered with what is
                no box or no score.
        """
        self._origin.check()
        queries = self._queries.of(words, mentions)
        if not queries:
            return ()
        key = _Key(picture.key, queries, self._threshold)
        while True:
            with self._lock:
                if (known := self._known.get(key)) is not None:
                    self._known.move_to_end(key)
                    self.hits += 1
                    return known
                others = self._sought.get(key)
                if others is None:
                    own = self._sought[key] = Future[_Found]()
                    self.misses += 1
                    break
            if (found := _found_by(others)) is not None:
                with self._lock:
                    self.hits += 1
                return found
        return self._search(key, picture, own)

    def probe(self) -> None:
        """Search a black picture for the fixed words, or for one of a text; what is found is not kept.

        Raises:
            BackendError: the grounder failed.
        """
        pixels = np.zeros((self._spec.size, self._spec.size, 3), np.uint8)
        self._checked(*self._together(_Search(pixels, self._queries.vectors(self._spec.words or ("person",)))))

    def forget(self) -> None:
        """Forget what was found."""
        with self._lock:
            self._known.clear()

    def close(self) -> None:
        """Free the grounder, and what was found."""
        self.forget()
        self.grounder.close()

    def _search(self, key: _Key, picture: WholePicture, result: Future[_Found]) -> _Found:
        """Search a picture, for whoever else waits for the result, too."""
        try:
            found = self._find(picture, key.queries, key.threshold)
        except BaseException as error:
            with self._lock:
                del self._sought[key]
            if isinstance(error, BackendError):
                result.set_exception(error)
            else:  # it names this picture's file, or is of this thread only: the others try by themselves
                result.cancel()
            raise
        with self._lock:
            del self._sought[key]
            self._known[key] = found
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
        result.set_result(found)
        return found

    def _find(self, picture: WholePicture, queries: tuple[str, ...], threshold: float) -> _Found:
        image = picture.decode(self._spec.size)  # [h, w, 3]
        fitted = fit(image, self._spec.kind, self._spec.size)
        boxes, scores = self._together(_Search(fitted.pixels, self._queries.vectors(queries)))  # [Q, 4], [Q]
        scores = self._checked(boxes, scores)
        width, height = picture.size
        scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        boxes = fitted.to_picture(boxes) * scale  # of a JPEG that was decoded at a fraction of its size
        chosen = select(boxes, scores, picture.size, threshold, self._most, picture.has_crop)
        return tuple(FoundObject(each.box, queries[each.query], each.score) for each in chosen)

    def _checked(self, boxes: _Floats, scores: _Floats) -> _Floats:
        """Scores [Q] of boxes [Q, 4], clipped to [0, 1], which rounding may leave."""
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            reason = "NaN or infinity; try another backend or precision"
        elif scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
            reason = f"a score outside [0, 1]; {ADD_AGAIN}"
        else:
            clipped: _Floats = np.clip(scores, 0, 1)
            return clipped
        raise BackendError(f"the grounder of {self.grounder.name} answered with {reason}")

    def _run(self, searches: Sequence[_Search]) -> list[tuple[_Floats, _Floats]]:
        """Boxes [Q, 4] and scores [Q] of each search; those with fewer queries than others are padded."""
        counts = [len(search.queries) for search in searches]
        images = np.stack([search.pixels for search in searches])  # [N, S, S, 3]
        queries = np.zeros((len(searches), max(counts), self._spec.query_size), np.float32)  # [N, Q, D]
        for row, search in zip(queries, searches, strict=True):
            row[: len(search.queries)] = search.queries
        boxes, scores = self.grounder.find_objects(images, queries)
        return [(boxes[row, :count], scores[row, :count]) for row, count in enumerate(counts)]


def _found_by(search: Future[_Found]) -> _Found | None:
    """What another thread's search finds, or None if it ends with nothing that holds for this thread's picture.

    Raises:
        BackendError: of this thread, as the other's.
    """
    try:
        error = search.exception()
    except CancelledError:
        return None
    if error is not None:
        raise copy(error) from error  # threads that raise the same object write its traceback at once
    return search.result()
