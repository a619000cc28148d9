"""The linear-chain CRF that ends entity recognition: best tags and span probabilities, computed in C++.

The algorithms are in `runtime/csrc/crf.cpp`, compiled to `hvpnet_runtime._crf`. This module turns what callers pass
into arrays the extension accepts.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.compiled import _crf


class CrfDecoder:
    """Decoder of a trained linear-chain CRF. Immutable: threads may share one, and it decodes with the GIL released.

    Args:
        start_transitions: float32 [labels], the score of each label at the first position.
        end_transitions: float32 [labels], the score of each label at the last position.
        transitions: float32 [labels, labels], the score of a label (column) after another (row). Infinities are
            allowed, to forbid a transition for instance.

    Raises:
        ValueError: an array has another type or shape, or contains NaN.
    """

    def __init__(
        self, start_transitions: npt.ArrayLike, end_transitions: npt.ArrayLike, transitions: npt.ArrayLike
    ) -> None:
        self._crf = _crf.Crf(
            _float32("start_transitions", start_transitions, 1),
            _float32("end_transitions", end_transitions, 1),
            _float32("transitions", transitions, 2),
        )

    @property
    def labels(self) -> int:
        """The number of labels."""
        return self._crf.labels

    def decode(self, emissions: npt.ArrayLike, mask: npt.ArrayLike) -> list[list[int]]:
        """Find the best tag sequence of each row by the Viterbi algorithm.

        The tags are those of `torchcrf.CRF.decode` (pytorch-crf 0.7.2) exactly: computed in float32 in its order of
        additions, the lowest tag winning ties.

        Args:
            emissions: float32 [batch, length, labels], scores from the model. Infinities are allowed.
            mask: bool or integer [batch, length]; each row True at the positions of its sequence, at least the first,
                and False from there on. Emissions at False are not read.

        Returns:
            For each row, one tag for each of its True positions.

        Raises:
            ValueError: an argument has another type or shape, emissions at True contain NaN, or a row of the mask is
                not a prefix mask.
        """
        return self._crf.decode(_float32("emissions", emissions, 3), _boolean("mask", mask, 2))

    def span_probabilities(
        self, emissions: npt.ArrayLike, tags: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> list[float]:
        """Compute the probability the CRF gives to the tags of each span, whatever the tags outside of it.

        This is the posterior marginal P(y_first = tags[first], ..., y_last = tags[last] | emissions), by the
        forward-backward algorithm on log scores in float64.

        Args:
            emissions: float32 [length, labels], scores of one sequence without padding. -inf is allowed.
            tags: [length], the tag of each position; those outside all spans do not matter, but must be labels.
            spans: pairs [first, last] of positions, both inclusive.

        Returns:
            One probability in [0, 1] per span.

        Raises:
            ValueError: an argument has another type or shape, the sequence is empty, a tag or a span is out of range,
                a score is NaN or +inf, or every tag sequence has the score -inf.
        """
        return self._crf.span_probabilities(
            _float32("emissions", emissions, 2),
            _int64("tags", tags, 1),
            _int64("spans", spans if len(spans) else np.empty((0, 2), np.int64), 2),
        )


def _float32(name: str, value: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.float32]:
    array = _array(name, value, dimensions)
    if array.dtype != np.float32:
        raise ValueError(f"{name} must be float32, not {array.dtype}: another precision could decode to other tags")
    return np.require(array, np.float32, requirements=("C_CONTIGUOUS", "ALIGNED"))


def _boolean(name: str, value: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.uint8]:
    array = _array(name, value, dimensions)
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} must be bool or integer, not {array.dtype}")
    boolean = array.astype(np.bool_, order="C")
    if array.dtype != np.bool_ and not np.array_equal(array, boolean):
        raise ValueError(f"{name} must hold 0 (padding) and 1 (position of the sequence) only")
    return boolean.view(np.uint8)


def _int64(name: str, value: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.int64]:
    array = _array(name, value, dimensions)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    # A copy, so that no other thread can change an index between its check and its use.
    return array.astype(np.int64, order="C")


def _array(name: str, value: npt.ArrayLike, dimensions: int) -> npt.NDArray[np.generic]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: its rows differ in length") from error
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, not the shape {array.shape}")
    return array
