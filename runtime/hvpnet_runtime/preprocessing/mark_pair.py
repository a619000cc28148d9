"""The marked pair of a relation: from what users count in to words, and back to what the model read."""

import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from operator import index

from hvpnet_runtime.errors import TextError, brief
from hvpnet_runtime.preprocessing.split_words import Word
from hvpnet_runtime.types import Mention, Span


def check_span(name: str, span: Span, length: int, unit: str) -> Span:
    """A span as integers.

    Args:
        name: what messages call it, `head` or `tail`.
        span: [start, end).
        length: of the text, in units.
        unit: `words` or `characters`.

    Raises:
        TextError: it is not two integers, is empty or lies outside the text.
    """
    try:
        start, end = (index(edge) for edge in span)
    except (TypeError, ValueError) as error:
        raise TextError(f"{name} must be [start, end) in {unit}, not {brief(span)}") from error
    if not 0 <= start < end <= length:
        raise TextError(f"{name} [{start}, {end}) is empty or outside the text of {length} {unit}")
    return start, end


def mark_characters(text: str, words: Sequence[Word], head: Span, tail: Span) -> tuple[list[Word], Span, Span]:
    """The words of a raw text, and the words [start, end) that head and tail are.

    A word that a span begins or ends in is split there, as "Rubin" of "Rubin-Musk", for BERT splits at punctuation too.

    Args:
        text: the raw text.
        words: as `split_words` splits it.
        head: characters [start, end) of the text; white space around the entity does not count.
        tail: as `head`.

    Raises:
        TextError: a span is impossible, only white space, or cuts through letters that belong together.
    """
    spans = {name: check_span(name, span, len(text), "characters") for name, span in (("head", head), ("tail", tail))}
    for name, (start, end) in spans.items():
        if not text[start:end].strip():
            raise TextError(f"{name} [{start}, {end}) is white space; give the characters of the entity")
        for word in words:
            cuts = [edge for edge in (start, end) if word.start < edge < word.end]
            if any(_belong_together(text[cut - 1], text[cut]) for cut in cuts):
                raise TextError(
                    f"{name} [{start}, {end}) is {brief(text[start:end])}, a part of the word {brief(word.text)}: give "
                    "all of its characters [start, end)"
                )
    split = list(_split_at(words, {edge for span in spans.values() for edge in span}))
    head, tail = (_covering(split, span) for span in spans.values())
    return split, head, tail


def mention(text: str, words: Sequence[Word], span: Span) -> Mention:
    """The characters of the words [start, end)."""
    start, end = words[span[0]].start, words[span[1] - 1].end
    return Mention(text[start:end], start, end)


def _belong_together(left: str, right: str) -> bool:
    """Whether these neighbours are letters or digits of a script that puts spaces between words, or an accent."""
    if unicodedata.category(right)[0] == "M":
        return True
    return left.isalnum() and right.isalnum() and "Lo" not in (unicodedata.category(left), unicodedata.category(right))


def _split_at(words: Sequence[Word], edges: set[int]) -> list[Word]:
    split = []
    for text, start, end in words:
        bounds = [start, *sorted(edge for edge in edges if start < edge < end), end]
        split += [Word(text[left - start : right - start], left, right) for left, right in pairwise(bounds)]
    return split


def _covering(words: Sequence[Word], span: Span) -> Span:
    inside = [number for number, word in enumerate(words) if word.start < span[1] and word.end > span[0]]
    return inside[0], inside[-1] + 1
