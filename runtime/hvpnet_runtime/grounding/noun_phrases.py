"""Noun phrases of a tweet's words, which a picture is searched for."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from hvpnet_runtime.errors import MissingExtraError

_LEFT_OUT = re.compile(r"(?:https?://|www\.)|[@\uff20]|rt$", re.IGNORECASE)
"""How words begin that name nothing to be seen: links, handles, and the mark of a retweet."""

_VISIBLE = re.compile(r"\w")


def noun_phrases(words: Sequence[str]) -> list[str]:
    """Runs of adjectives and nouns that end in a noun, in the order of the text.

    Tags are those of textblob's lexicon, which comes with the package; its own extractors would need corpora of NLTK.
    Links, handles and RT are left out, and end a phrase. The word of a hashtag counts.

    Args:
        words: of a tweet.

    Raises:
        MissingExtraError: textblob is not installed.
    """
    phrases = []
    for is_read, run in groupby(words, key=lambda word: not _LEFT_OUT.match(word)):
        if is_read:
            phrases += list(_phrases([word.lstrip("#\uff03") for word in run]))
    return phrases


def load_tagger() -> Any:  # noqa: ANN401  textblob has no types
    """Textblob's tagger, with its lexicon read: threads that read it at once would find half of it.

    Raises:
        MissingExtraError: textblob is not installed.
    """
    return _tagger()


@cache
def _tagger() -> Any:  # noqa: ANN401
    try:
        from textblob.en import parser
    except ImportError as error:
        raise MissingExtraError("textblob", "grounding", "searching pictures for noun phrases") from error
    parser.find_tags(["lexicon"])
    return parser


def _phrases(words: Sequence[str]) -> Iterator[str]:
    kinds = "".join(map(_kind, load_tagger().find_tags(list(words))))
    yield from (" ".join(words[start:end]) for start, end in _spans(kinds))


def _spans(kinds: str) -> Iterator[tuple[int, int]]:
    """Where phrases are: each run of adjectives and nouns without the adjectives at its end, in one pass."""
    for run in re.finditer("[JN]+", kinds):
        length = len(run[0].rstrip("J"))
        if length:
            yield run.start(), run.start() + length


def _kind(tagged: Sequence[str]) -> str:
    """N for a noun, J for an adjective, and a full stop for anything else; marks and emoji are tagged as nouns, too."""
    word, tag = tagged
    return tag[0] if tag[:2] in ("NN", "JJ") and _VISIBLE.search(word) else "."
