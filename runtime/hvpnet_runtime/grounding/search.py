"""Searches of pictures by a loaded grounder: those of several threads share a run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends import Grounder
from hvpnet_runtime.backends.grounder import MAX_GROUNDED
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.bundle.grounder_spec import ADD_AGAIN
from hvpnet_runtime.errors import BackendError, InputError, brief
from hvpnet_runtime.grounding.queries import load_encoder
from hvpnet_runtime.grounding.together import Together

_ROUNDING = 1e-3
"""How far a score may lie outside [0, 1]: the step between numbers of FP16 at 1."""


class Search(NamedTuple):
    """What one picture is searched for: pixels uint8 [S, S, 3], and Q queries, at least one."""

    pixels: npt.NDArray[np.uint8]
    queries: tuple[str, ...]


class Answer(NamedTuple):
    """The best box of each query, float32 [Q, 4], in shares of S and not clipped; and its score, float32 [Q]."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


class Searcher:
    """Searches pictures with a bundle's grounder. Thread-safe.

    Attributes:
        grounder: what runs the graphs.

    Args:
        bundle: a checked bundle with a grounder.
        grounder: of the bundle.

    Raises:
        BundleError: the bundle has no grounder, or what encodes its queries is damaged.
    """

    def __init__(self, bundle: Bundle, grounder: Grounder) -> None:
        self.grounder, self._spec = grounder, bundle.grounder
        self._encode = load_encoder(bundle, grounder)
        self._together: Together[Search, Answer] = Together(self.run, MAX_GROUNDED)

    @property
    def batch(self) -> int:
        """Most pictures in one run of the grounder, from 1 to `MAX_GROUNDED`; another number is an `InputError`."""
        return self._together.most

    @batch.setter
    def batch(self, most: int) -> None:
        if type(most) is not int or not 1 <= most <= MAX_GROUNDED:
            raise InputError(f"batch must be a whole number from 1 to {MAX_GROUNDED}, not {brief(most)}")
        self._together.most = most

    def __call__(self, search: Search) -> Answer:
        """The answer to a search, in one run with those of other threads.

        Raises:
            BackendError: the grounder failed, for this picture or one that shared its run, or as `check`.
        """
        return self.check(self._together(search))

    def run(self, searches: Sequence[Search]) -> list[Answer]:
        """The answers to at most `MAX_GROUNDED` searches in one run; those with fewer queries than others are padded.

        Raises:
            BackendError: the grounder failed.
        """
        vectors = [self._encode(search.queries) for search in searches]
        images = np.stack([search.pixels for search in searches])  # [N, S, S, 3]
        queries = np.zeros((len(searches), max(map(len, vectors)), self._spec.query_size), np.float32)  # [N, Q, D]
        for row, own in zip(queries, vectors, strict=True):
            row[: len(own)] = own
        boxes, scores = self.grounder.find_objects(images, queries)
        return [Answer(boxes[row, : len(own)], scores[row, : len(own)]) for row, own in enumerate(vectors)]

    def check(self, answer: Answer) -> Answer:
        """An answer whose scores are clipped to [0, 1], which rounding may leave.

        Raises:
            BackendError: it has what is no box or no score.
        """
        boxes, scores = answer
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            reason = "NaN or infinity; try another backend or precision"
        elif scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
            reason = f"a score outside [0, 1]; {ADD_AGAIN}"
        else:
            return Answer(boxes, np.clip(scores, 0, 1))
        raise BackendError(f"the grounder of {self.grounder.name} answered with {reason}")

    def probe(self) -> None:
        """Search a black picture for the fixed words, or for one of a text.

        Raises:
            BackendError: the grounder failed.
        """
        pixels = np.zeros((self._spec.size, self._spec.size, 3), np.uint8)
        self(Search(pixels, self._spec.words or ("person",)))
