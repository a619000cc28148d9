"""Objects of a picture: searched for once, whatever tweets show it and however many threads ask."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from copy import copy
from threading import Lock
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends import Grounder
from hvpnet_runtime.backends.grounder import MAX_QUERIES
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.grounding.pictures import fit
from hvpnet_runtime.grounding.queries import load_queries
from hvpnet_runtime.grounding.search import Answer, Search, Searcher
from hvpnet_runtime.grounding.selection import select
from hvpnet_runtime.preprocessing.tweet_pictures import WholePicture
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.types import FoundObject, Mention

REMEMBERED = 16_384
"""Searches that are remembered, the last used ones; one takes one to six kilobytes, by the number of its queries."""

_Found: TypeAlias = tuple[FoundObject, ...]


class _Key(NamedTuple):
    """What was searched for in which picture; all of it, since the last digits of an answer may depend on all of it."""

    picture: bytes
    queries: tuple[str, ...]


class _Seen(NamedTuple):
    """The answer of a grounder, for a picture of this width and height.

    `boxes`, float32 [Q, 4], are (x0, y0, x1, y1) in its pixels, the best of each query; `scores` are float32 [Q].
    """

    size: tuple[int, int]
    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


class Finding(ABC):
    """Finds objects, wherever the grounder is: pictures are searched once, and what was found is kept. Thread-safe.

    Attributes:
        hits: searches whose objects were known, or found by another thread meanwhile.
        misses: searches that a grounder ran. A picture has several for more than 16 queries.
        threshold: objects with a smaller score are dropped; by default that of the bundle.

    Args:
        bundle: a checked bundle with a grounder.
        remembered: see `REMEMBERED`.

    Raises:
        BundleError: the bundle has no grounder.
        MissingExtraError: a package that prepares pictures for this grounder, or makes queries of the text, is not
            installed.
    """

    def __init__(self, bundle: Bundle, remembered: int = REMEMBERED) -> None:
        self._spec, self._most = bundle.grounder, bundle.manifest.limits.max_objects
        self._remembered = remembered
        fit(np.zeros((1, 1, 3), np.uint8), self._spec.kind, self._spec.size)  # which may need a package
        self._queries = load_queries(bundle)
        self.threshold = self._spec.threshold
        self._known: OrderedDict[_Key, _Seen] = OrderedDict()
        self._sought: dict[_Key, Future[_Seen]] = {}
        self._lock, self._origin = Lock(), Origin()
        self.hits = self.misses = 0

    @abstractmethod
    def _answer(self, search: Search) -> Answer:
        """Ask the grounder.

        Raises:
            BackendError: it failed.
        """

    def __call__(self, picture: WholePicture, words: Sequence[str], pairs: Sequence[Sequence[Mention]]) -> list[_Found]:
        """Objects of a tweet's picture for each pair, the best first, at most as many as the model reads.

        One search finds those of all pairs; beyond `MAX_QUERIES` queries of the text there are several.

        Args:
            picture: decoded only if it was not searched for the same queries lately.
            words: of the tweet.
            pairs: head and tail of each relation; for entities, one without either.

        Raises:
            PictureError: the picture cannot be decoded.
            BackendError: as `Searcher`.
        """
        self._origin.check()
        threshold, is_fixed = self.threshold, self._spec.queries == "fixed"
        asked = [self._queries(words, mentions) for mentions in pairs]
        every = tuple(dict.fromkeys(query for queries in asked for query in queries))
        if not every:
            return [() for _ in asked]
        most = len(every) if is_fixed else MAX_QUERIES
        parts = [every[start : start + most] for start in range(0, len(every), most)]
        seen = [self._seen(_Key(picture.key, part), picture) for part in parts]
        boxes = np.concatenate([each.boxes for each in seen])  # [Q, 4]
        scores = np.concatenate([each.scores for each in seen])  # [Q]
        found = []
        for queries in asked:
            rows = [every.index(query) for query in queries]
            chosen = select(boxes[rows], scores[rows], seen[0].size, threshold, self._most, picture.has_crop)
            found.append(tuple(FoundObject(each.box, queries[each.query], each.score) for each in chosen))
        return found

    def forget(self) -> None:
        """Forget what was found."""
        with self._lock:
            self._known.clear()

    def _seen(self, key: _Key, picture: WholePicture) -> _Seen:
        """What a search finds, this one or an earlier one."""
        while True:
            with self._lock:
                if (known := self._known.get(key)) is not None:
                    self._known.move_to_end(key)
                    self.hits += 1
                    return known
                others = self._sought.get(key)
                if others is None:
                    own = self._sought[key] = Future[_Seen]()
                    self.misses += 1
                    break
            if (seen := _seen_by(others)) is not None:
                with self._lock:
                    self.hits += 1
                return seen
        return self._search(key, picture, own)

    def _search(self, key: _Key, picture: WholePicture, result: Future[_Seen]) -> _Seen:
        """Search a picture, for whoever else waits for the result, too."""
        try:
            seen = self._look(picture, key.queries)
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
            self._known[key] = seen
            while len(self._known) > self._remembered:
                self._known.popitem(last=False)
        result.set_result(seen)
        return seen

    def _look(self, picture: WholePicture, queries: tuple[str, ...]) -> _Seen:
        image = picture.decode(self._spec.size)  # [h, w, 3]
        fitted = fit(image, self._spec.kind, self._spec.size)
        boxes, scores = self._answer(Search(fitted.pixels, queries))  # [Q, 4], [Q]
        width, height = picture.size
        scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        # A JPEG may have been decoded at a fraction of its size.
        return _Seen(picture.size, fitted.to_picture(boxes) * scale, scores)


class ObjectFinder(Finding):
    """Finds objects with a grounder in this process; see `Finding`.

    Threads that search at the same time are answered by one run of the grounder, and its last digits may depend on how
    many pictures share a run; where that must not be, set `batch` to 1.

    Args:
        bundle: a checked bundle with a grounder.
        grounder: of the bundle; closed with the finder.
        remembered: see `REMEMBERED`.

    Raises:
        BundleError: the bundle has no grounder, or its queries are damaged.
        MissingExtraError: as `Finding`.
    """

    def __init__(self, bundle: Bundle, grounder: Grounder, remembered: int = REMEMBERED) -> None:
        super().__init__(bundle, remembered)
        self._searcher = Searcher(bundle, grounder)

    @property
    def grounder(self) -> Grounder:
        """What runs the graphs."""
        return self._searcher.grounder

    @property
    def batch(self) -> int:
        """See `Searcher`."""
        return self._searcher.batch

    @batch.setter
    def batch(self, most: int) -> None:
        self._searcher.batch = most

    def probe(self) -> None:
        """See `Searcher`; what is found is not kept."""
        self._searcher.probe()

    def close(self) -> None:
        """Free the grounder, and what was found."""
        self.forget()
        self.grounder.close()

    def _answer(self, search: Search) -> Answer:
        return self._searcher(search)


def _seen_by(search: Future[_Seen]) -> _Seen | None:
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
