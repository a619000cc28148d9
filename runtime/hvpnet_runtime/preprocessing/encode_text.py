"""Words to token ids, as in the published loaders (zjunlp/HVPNeT, processor/dataset.py); windows over long texts."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from hvpnet_runtime.errors import BundleError, TextError, brief
from hvpnet_runtime.preprocessing.mark_pair import check_span
from hvpnet_runtime.types import Span

MARKERS = ("<s>", "</s>", "<o>", "</o>")
"""Start and end of the head, start and end of the tail; special tokens of a tokenizer for relations."""


@dataclass(frozen=True)
class Encoding:
    """Token ids of one text, and where its words are among them.

    Attributes:
        input_ids: [CLS], the pieces of the words, [SEP]; never longer than the encoder's `max_length`.
        first_pieces: per word the position of its first piece in `input_ids`; None for a word that gives no piece
            (zero-width characters) or whose first piece is not among `input_ids`.
        piece_ends: per word one past the position of its last piece in `input_ids`; None where `first_pieces` is.
        cut_words: how many words have pieces, but none among `input_ids`.
        head_index: position of the marker <s>; None without markers.
        tail_index: position of the marker <o>; None without markers.
    """

    input_ids: tuple[int, ...]
    first_pieces: tuple[int | None, ...]
    piece_ends: tuple[int | None, ...]
    cut_words: int
    head_index: int | None = None
    tail_index: int | None = None


@dataclass(frozen=True)
class EntityWindow:
    """A run of words that fits the piece budget, and the part of it that this window predicts.

    The first piece of word `i` of the text, for `i` in `range(*owned)`, is at `encoding.first_pieces[i - offset]`.

    Attributes:
        encoding: of the words [offset, offset + len(encoding.first_pieces)) of the text.
        offset: the window's first word.
        owned: [start, end) in words of the text. The windows of a text own each of its words exactly once, in order.
    """

    encoding: Encoding
    offset: int
    owned: Span

    @property
    def owned_pieces(self) -> tuple[int | None, ...]:
        """Position of each owned word's first piece in `encoding.input_ids`, or None."""
        first, end = self.owned
        return self.encoding.first_pieces[first - self.offset : end - self.offset]


class TextEncoder:
    """Encodes the words of tweets for the text graph. Thread-safe.

    Args:
        tokenizer: a BERT tokenizer; copied, so its own truncation and padding are neither used nor changed.
        max_length: tokens of a text, [CLS] and [SEP] included (`max_seq` of the published code).
        markers: the tokenizer has the markers of relations as special tokens, and `encode_relation` will be used.

    Raises:
        BundleError: the tokenizer lacks a special token, or `max_length` leaves no room for a word.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, *, markers: bool) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cls, self._sep, self._pad = (self._special(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
        self._markers = tuple(self._special(marker) for marker in MARKERS) if markers else ()
        self._budget = max_length - 2  # pieces between [CLS] and [SEP]
        if self._budget < 1:
            raise BundleError(
                f"max_length is {max_length}, but [CLS], [SEP] and one piece of text need 3; export again"
            )

    def encode_entities(self, words: Sequence[str], *, blank: bool = False) -> Encoding:
        """Encodes words for entity recognition; pieces beyond the budget are cut off, as published.

        Args:
            words: the words of the text.
            blank: take words that give no piece (zero-width characters) for a text without a piece, as the published
                loaders do, instead of refusing them.

        Raises:
            TextError: there is no word, none of them gives a piece, or one is not a string.
        """
        return self._assemble(self._pieces(words, blank=blank))

    def entity_windows(self, words: Sequence[str]) -> list[EntityWindow]:
        """Encodes words for entity recognition without cutting any: in windows that overlap by about half.

        Each word is owned by the window that shows most context on the word's poorer side. A single word with more
        pieces than the budget has a window of its own, cut at the budget. A text that fits is one window.

        Raises:
            TextError: as `encode_entities`.
        """
        pieces = self._pieces(words)
        # the words [i, j) take edges[j] - edges[i] pieces of a window
        edges = list(accumulate((min(len(word), self._budget) for word in pieces), initial=0))
        windows = _overlapping_windows(edges, self._budget)
        bounds = [0, *(_boundary(left, right, edges) for left, right in pairwise(windows)), len(words)]
        return [
            EntityWindow(self._assemble(pieces[start:end]), start, owned)
            for (start, end), owned in zip(windows, pairwise(bounds), strict=True)
        ]

    def encode_relation(
        self, words: Sequence[str], head: Span, tail: Span, *, window: bool = False, blank: bool = False
    ) -> Encoding:
        """Encodes words with a marked pair for relation extraction.

        Args:
            words: the words of the text.
            head: words [start, end) of the head.
            tail: words [start, end) of the tail; it may overlap the head.
            window: of a text beyond the budget keep the pair, with as much context on both sides as fits, and not the
                beginning as published.
            blank: as `encode_entities`.

        Raises:
            TextError: as `encode_entities`; a span is empty or lies outside the text; a word contains a marker; or the
                pair lies beyond the budget.
        """
        return self.mark_pair(self.relation_pieces(words, blank=blank), head, tail, window=window)

    def relation_pieces(self, words: Sequence[str], *, blank: bool = False) -> list[list[int]]:
        """The pieces of each word, for `mark_pair`.

        Raises:
            TextError: as `encode_entities`; or a word contains a marker.
        """
        if not self._markers:
            raise TextError("this bundle has no relation markers: it extracts entities; use one exported for relations")
        pieces = self._pieces(words, blank=blank)
        for word, own in zip(words, pieces, strict=True):
            if not set(self._markers).isdisjoint(own):
                raise TextError(f"the word {brief(word)} contains a relation marker ({', '.join(MARKERS)}); remove it")
        return pieces

    def mark_pair(
        self, pieces: list[list[int]], head: Span, tail: Span, *, window: bool = False, without_middle: bool = False
    ) -> Encoding:
        """Marks a pair among the `relation_pieces` of words.

        Args:
            pieces: of each word.
            head: as of `encode_relation`, and so are `tail` and `window`.
            tail: see above.
            window: see above.
            without_middle: of a pair that does not fit, leave out what lies halfway between head and tail; the encoding
                has no places for these words.

        Raises:
            TextError: a span is empty or lies outside the text; or the pair lies beyond the budget.
        """
        words = len(pieces)
        head, tail = check_span("head", head, words, "words"), check_span("tail", tail, words, "words")
        if without_middle:
            pieces, head, tail = _without_middle(pieces, head, tail, self._budget - len(MARKERS))
        # As published, markers are put before words only: an end that is the number of words has no closing marker.
        places = list(zip(self._markers, (*head, *tail), strict=True))
        before = [[marker for marker, place in places if place == word] for word in range(len(pieces))]
        shown = (0, len(pieces))
        if window:
            shown = self._around_pair(pieces, before, (min(head[0], tail[0]), max(head[1], tail[1])))
        encoding = self._assemble(pieces, before, shown)
        head_start, _, tail_start, _ = self._markers
        try:
            head_index, tail_index = map(encoding.input_ids.index, (head_start, tail_start))
        except ValueError as error:
            raise TextError(
                f"truncation to {self._budget} pieces cut off the marker of head or tail; the option window keeps the"
                " pair"
            ) from error
        return replace(encoding, head_index=head_index, tail_index=tail_index)

    def pad(self, encodings: Sequence[Encoding]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Stacks texts, padded with [PAD] to the longest of them.

        Returns:
            input_ids int64 [B, T] and attention_mask int64 [B, T], 1 for a token and 0 for padding.
        """
        longest = max(len(encoding.input_ids) for encoding in encodings)
        input_ids = np.full((len(encodings), longest), self._pad, np.int64)  # [B, T]
        attention_mask = np.zeros_like(input_ids)  # [B, T]
        for row, encoding in enumerate(encodings):
            input_ids[row, : len(encoding.input_ids)] = encoding.input_ids
            attention_mask[row, : len(encoding.input_ids)] = 1
        return input_ids, attention_mask

    def _special(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise BundleError(f"tokenizer.json has no token {token}; export the bundle again with its BERT tokenizer")
        return number

    def _pieces(self, words: Sequence[str], *, blank: bool = False) -> list[list[int]]:
        """The pieces of each word, tokenised alone.

        The published code does this for entities; for relations it tokenises the words joined by spaces, which gives
        the same pieces because BERT splits at spaces first. A word that spells a special token ("[SEP]") becomes that
        token, as in the published code.
        """
        _check_words(words)
        encoding = self._tokenizer.encode(list(words), is_pretokenized=True, add_special_tokens=False)
        pieces: list[list[int]] = [[] for _ in words]
        for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
            if word is not None:  # every piece has one: only [CLS] and [SEP], which we add ourselves, would not
                pieces[word].append(piece)
        if not any(pieces) and not blank:
            raise TextError("the text has no visible character to read; give at least one word")
        return pieces

    def _assemble(
        self, pieces: list[list[int]], before: list[list[int]] | None = None, shown: Span | None = None
    ) -> Encoding:
        """[CLS], the pieces of the words in `shown` with the markers `before` them, cut to the budget, [SEP]."""
        first_shown, end_shown = shown or (0, len(pieces))
        input_ids = [self._cls]
        spans: list[Span] = []
        for word, own in enumerate(pieces):
            if before and first_shown <= word <= end_shown:  # what closes the last shown word is before the next
                input_ids += before[word]
            start = len(input_ids)
            if first_shown <= word < end_shown:
                input_ids += own
            spans.append((start, len(input_ids)))
        limit = self._budget + 1
        inside = [start < min(end, limit) for start, end in spans]
        return Encoding(
            input_ids=(*input_ids[:limit], self._sep),
            first_pieces=tuple(start if kept else None for (start, _), kept in zip(spans, inside, strict=True)),
            piece_ends=tuple(min(end, limit) if kept else None for (_, end), kept in zip(spans, inside, strict=True)),
            cut_words=sum(map(bool, pieces)) - sum(inside),
        )

    def _around_pair(self, pieces: list[list[int]], before: list[list[int]], pair: Span) -> Span:
        """Extends `pair`, in words, by a word on the side with less context as long as one fits the budget."""
        first, end = pair
        room = self._budget - sum(map(len, pieces[first:end])) - sum(map(len, before))
        if room < 0:
            raise TextError(
                f"head, tail and what lies between them take {self._budget - room} pieces, but {self._budget} fit; "
                "mark a closer pair"
            )
        left = right = 0  # pieces of context
        while True:
            fits_left = first > 0 and len(pieces[first - 1]) <= room - left - right
            fits_right = end < len(pieces) and len(pieces[end]) <= room - left - right
            if fits_left and (left <= right or not fits_right):
                first -= 1
                left += len(pieces[first])
            elif fits_right:
                right += len(pieces[end])
                end += 1
            else:
                return first, end


def _without_middle(pieces: list[list[int]], head: Span, tail: Span, room: int) -> tuple[list[list[int]], Span, Span]:
    """Words without those halfway between head and tail, as few as need to go for the rest to fit; and both spans."""
    (first, left), (right, end) = sorted((head, tail))
    between = pieces[left:right]
    spare = room - sum(map(len, pieces[first:end])) + sum(map(len, between))  # for what is between
    if right <= left or sum(map(len, between)) <= spare:
        return pieces, head, tail
    kept_left = kept_right = 0  # words
    while True:
        fits_left = len(between[kept_left]) <= spare
        fits_right = len(between[-1 - kept_right]) <= spare
        if fits_left and (kept_left <= kept_right or not fits_right):
            spare -= len(between[kept_left])
            kept_left += 1
        elif fits_right:
            spare -= len(between[-1 - kept_right])
            kept_right += 1
        else:
            break
    gone = len(between) - kept_left - kept_right
    shorter = [*pieces[: left + kept_left], *pieces[right - kept_right :]]
    head, tail = (span if span[0] < right else (span[0] - gone, span[1] - gone) for span in (head, tail))
    return shorter, head, tail


def _check_words(words: Sequence[str]) -> None:
    if isinstance(words, str):
        raise TextError("words must be a list of words, not one string; give it as text")
    if not len(words):
        raise TextError("the text is empty; give at least one word")
    for word in words:
        if not isinstance(word, str):
            raise TextError(f"a word must be a string, not {type(word).__name__} ({brief(word)})")
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise TextError(
                f"the word {brief(word)} has half of a surrogate pair, which is no text; repair it"
            ) from error


def _overlapping_windows(edges: list[int], budget: int) -> list[Span]:
    """Windows over words, each as long as the budget allows and begun half a budget after the one before.

    A window begins later where that is needed to reach a new word, and the last one earlier if that fills it.
    """
    words = len(edges) - 1
    windows: list[Span] = []
    start = 0
    while True:
        end = bisect_right(edges, edges[start] + budget) - 1
        windows.append((start, end))
        if end == words:
            return windows
        half_later = bisect_left(edges, edges[start] + (budget + 1) // 2)
        reaching_next = bisect_left(edges, edges[end + 1] - budget)
        filled_to_the_end = bisect_left(edges, edges[words] - budget)
        start = max(reaching_next, min(half_later, filled_to_the_end, end))


def _boundary(left: Span, right: Span, edges: list[int]) -> int:
    """The first word that the right window shows with more context on its poorer side than the left window does.

    The left window lacks what follows its end, and the right one what precedes its start.
    """
    (_, left_end), (right_start, _) = left, right
    for word in range(right_start, left_end):
        if edges[word] - edges[right_start] > edges[left_end] - edges[word + 1]:
            return word
    return left_end
