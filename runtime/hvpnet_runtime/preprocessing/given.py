"""What a tweet gives: its words, and lists that any iterable may stand for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvpnet_runtime.errors import InputError, TextError
from hvpnet_runtime.preprocessing.split_words import Word, split_words
from hvpnet_runtime.types import Tweet


def items(name: str, given: Any) -> list[Any]:  # noqa: ANN401  whatever a user gave
    """The items of `words`, `objects` or `boxes`, of any iterable but one item alone.

    Raises:
        InputError: it is one item, or has no order.
    """
    if given is None:
        return []
    must = f"{name} must be a list, not {type(given).__name__}"
    if isinstance(given, Mapping):
        raise InputError(f"{must}: put its values into a list")
    if isinstance(given, set | frozenset):
        raise InputError(f"{must}: put its items into a list, whose order counts")
    is_one = isinstance(given, str | bytes | bytearray | Path | Image.Image) or not isinstance(given, Iterable)
    if is_one or (isinstance(given, np.ndarray) and given.ndim in (0, 3)):  # a number, a picture
        raise InputError(f"{must}: put a single one into a list")
    return list(given)


def words_of(tweet: Tweet) -> tuple[str, list[Word]]:
    """The words of a tweet that gives its text or its words, and the text that their offsets count in.

    Raises:
        InputError: it gives neither or both.
        TextError: its words are no strings.
    """
    if tweet.text is None and tweet.words is None:
        raise InputError("a tweet needs its text or its words")
    if tweet.text is not None and tweet.words is not None:
        raise InputError("a tweet has text or words, not both")
    if tweet.text is not None:
        return tweet.text, split_words(tweet.text)
    words = items("words", tweet.words)
    if not all(isinstance(word, str) for word in words):
        raise TextError("words must be a list of strings")
    placed, start = [], 0
    for word in words:
        placed.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), placed
