"""Splitting a raw tweet into words with their places in the text, close to how the training data was split."""

import re
import unicodedata
from typing import NamedTuple

from hvpnet_runtime.errors import TextError

# `\w` leaves out combining marks (accents, the vowel signs of Indic scripts), and `re` has no \p{M}. U+200C and U+200D
# join the letters of one word in Persian and in Indic scripts.
_MARKS = "".join(chr(c) for c in range(0x300, 0x12000) if unicodedata.category(chr(c))[0] == "M")
_LETTER = rf"[\w{_MARKS}\u200c\u200d]"

_EMOJI = (
    r"[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    r"\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]"
)
_MODIFIER = r"[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"  # styles, keycap, skin tones, tags

_WORD = re.compile(
    rf"""
      # a URL, without the punctuation or bracket that follows it
      (?:[Hh][Tt][Tt][Pp][Ss]?://|[Ww][Ww][Ww]\.) [^\s<>"]* [^\s<>"'.,;:!?\u2026)\]}}]

      # one emoji: a flag, a keycap, or pictographs held together by joiners
    | [\U0001f1e6-\U0001f1ff]{{2}}
    | [0-9\#*] \ufe0f? \u20e3
    | {_EMOJI} {_MODIFIER}* (?: \u200d {_EMOJI} {_MODIFIER}* )*

      # a mention or a hashtag, ASCII or full-width
    | [@\#\uff20\uff03] \w {_LETTER}*

      # the clitic of "Obama's" is a word of its own, as in the training data, so that the entity ends before it
    | (?<=\w) ['\u2019] [sS] \b

      # letters and digits, with apostrophes and hyphens between letters, and . , : / between digits
    | \w {_LETTER}* (?: (?: - (?=\w) | ['\u2019] (?=\w) (?![sS]\b) | (?<=\d) [.,:/] (?=\d) ) {_LETTER}+ )*

      # anything else: a run of one mark ("..."), which also makes sure that no character is lost
    | (?P<mark>\S) (?P=mark)*
    """,
    re.VERBOSE,
)


class Word(NamedTuple):
    """A word and the characters [start, end) of the text that it covers."""

    text: str
    start: int
    end: int


def split_words(text: str) -> list[Word]:
    """Splits a tweet into words: every character that is not white space belongs to exactly one of them.

    URLs, @mentions, #hashtags, numbers such as 1,000.5 and emoji sequences stay whole; punctuation stands apart, a run
    of the same mark together. Possessives are split off ("Obama", "'s"), other apostrophes and hyphens inside a word
    are not.

    Args:
        text: the raw tweet.

    Returns:
        The words in order; none for a text that is empty or only white space.

    Raises:
        TextError: `text` is not a string.
    """
    if not isinstance(text, str):
        raise TextError(f"the text must be a string, not {type(text).__name__}")
    return [Word(match.group(), *match.span()) for match in _WORD.finditer(text)]
