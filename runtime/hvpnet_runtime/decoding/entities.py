"""From the text graph's output to entities and relations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.decoding.crf import CrfDecoder
from hvpnet_runtime.errors import BundleError
from hvpnet_runtime.labels import OUTSIDE, bio_tags
from hvpnet_runtime.preprocessing.encode_text import EntityWindow
from hvpnet_runtime.preprocessing.split_words import Word
from hvpnet_runtime.types import Entity


def entity_spans(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Type, first and last word of every entity, as seqeval's default mode groups BIO tags.

    An I- tag that continues nothing of its type begins an entity.
    """
    first, current = 0, ""  # of the open entity; no type: none is open
    for index, tag in enumerate((*tags, OUTSIDE)):
        position, _, kind = tag.partition("-")
        if position == "I" and kind == current:
            continue
        if current:
            yield current, first, index - 1
        first, current = index, kind


@dataclass(frozen=True)
class TaggedWindow:
    """A window of a text with its emissions float32 [length, labels] and decoded tag indices [length]."""

    window: EntityWindow
    emissions: npt.NDArray[np.float32]
    path: list[int]


class EntityDecoder:
    """Stitches the windows of a text together and scores its entities.

    Args:
        labels: by index; see `bio_tags`.
        crf: of the same labels.

    Raises:
        BundleError: a label is no BIO tag and none of these.
    """

    def __init__(self, labels: Sequence[str], crf: CrfDecoder) -> None:
        try:
            self._tags = bio_tags(labels)
        except ValueError as error:
            raise BundleError(
                f"{error}: export the checkpoint again with hvpnet export --labels, naming some that are"
            ) from error
        self._crf = crf

    def decode(self, emissions: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]) -> list[list[int]]:
        """Viterbi: emissions [B, T, labels], mask [B, T] -> the best tag indices of every row."""
        return self._crf.decode(emissions, mask)

    def word_tags(self, windows: Sequence[TaggedWindow]) -> tuple[str, ...]:
        """One BIO tag per word: that of its first piece, O for a word without one."""
        return tuple(
            OUTSIDE if position is None else self._tags[tagged.path[position]]
            for tagged in windows
            for position in tagged.window.owned_pieces
        )

    def entities(self, windows: Sequence[TaggedWindow], text: str, words: Sequence[Word]) -> tuple[Entity, ...]:
        """The entities of a text, in order, with their CRF marginals.

        Args:
            windows: of the text, in order.
            text: what the words' offsets count in.
            words: all words of the text.
        """
        spans = list(entity_spans(self.word_tags(windows)))
        entities = []
        for (kind, first, last), score in zip(spans, self._scores(windows, spans), strict=True):
            start, end = words[first].start, words[last].end
            entities.append(Entity(text[start:end], kind, start, end, first, last, score))
        return tuple(entities)

    def _scores(self, windows: Sequence[TaggedWindow], spans: Sequence[tuple[str, int, int]]) -> Iterator[float]:
        """The marginal of each span, in the window that owns its first word; one forward-backward pass per window."""
        for tagged in windows:
            start, end = tagged.window.owned
            own = [_piece_span(tagged.window, first, last) for _, first, last in spans if start <= first < end]
            if own:
                yield from self._crf.span_probabilities(tagged.emissions, tagged.path, own)


def _piece_span(window: EntityWindow, first: int, last: int) -> tuple[int, int]:
    """From the first piece of the words to their last in this window, inclusive."""
    words = slice(first - window.offset, last + 1 - window.offset)
    starts = [position for position in window.encoding.first_pieces[words] if position is not None]
    ends = [position for position in window.encoding.piece_ends[words] if position is not None]
    return starts[0], ends[-1] - 1


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Along the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities
