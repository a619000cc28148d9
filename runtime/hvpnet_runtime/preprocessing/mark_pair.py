"""The marked pair of a relation: from what users count in to words, and back to what the model read."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from operator import index

from hvpnet_runtime.errors import TextError, brief
from hvpnet_runtime.preprocessing.split_words import Word
from hvpnet_runtime.types import Mention, Span

_UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Scripts that put no spaces between words (Thai, Lao, Tibetan, Burmese, Khmer, kana, Han), and Hangul, whose particles
follow a name without one."""

_JOINER = "\u200d"
_WITHIN_EMOJI = re.compile(r"[\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
"""The second letter of a flag, skin tones, and tags."""


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
        TextError: a span is impossible, has no visible character, or cuts through letters that belong together.
    """
    spans = {name: check_span(name, span, len(text), "characters") for name, span in (("head", head), ("tail", tail))}
    for name, (start, end) in spans.items():
        if all(unicodedata.category(character)[0] in "CZ" for character in text[start:end]):  # what BERT leaves out
            raise TextError(f"{name} [{start}, {end}) has no visible character; give the characters of the entity")
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
    """Whether these neighbours in a word are letters or digits of one word, a letter and its accent, or one emoji."""
    if unicodedata.category(right)[0] == "M" or _JOINER in (left, right) or _WITHIN_EMOJI.match(right):
        return True
    return left.isalnum() and right.isalnum() and not (_UNSPACED.match(left) or _UNSPACED.match(right))


def _split_at(words: Sequence[Word], edges: set[int]) -> list[Word]:
    split = []
    for text, start, end in words:
        bounds = [start, *sorted(edge for edge in edges if start < edge < end), end]
        split += [Word(text[left - start : right - start], left, right) for left, right in pairwise(bounds)]
    return split


def _covering(words: Sequence[Word], span: Span) -> Span:
    inside = [number for number, word in enumerate(words) if word.start < span[1] and word.end > span[0]]
    return inside[0], inside[-1] + 1
