"""A tweet to token ids and pixels: everything that needs no backend, so that it can run elsewhere or ahead."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import InputError, PictureError, TextError
from hvpnet_runtime.preprocessing.encode_text import Encoding, EntityWindow, TextEncoder
from hvpnet_runtime.preprocessing.pictures import load_pixels, open_picture, picture_name, to_pixels
from hvpnet_runtime.preprocessing.split_words import Word, split_words
from hvpnet_runtime.preprocessing.tokenizer import load_tokenizer
from hvpnet_runtime.types import Picture, Tweet

Pixels: TypeAlias = npt.NDArray[np.uint8]
OnBadImage: TypeAlias = Literal["error", "substitute"]

SUBSTITUTE = "inf.png"
"""What the published loaders take for a whole picture that cannot be read, from the same folder."""


@dataclass(frozen=True)
class Prepared:
    """One tweet, ready for the graphs.

    Attributes:
        tweet: what was given.
        text: what the words' offsets count in.
        words: with their offsets in `text`.
        windows: what the text graph reads: one row unless the text is long and windows were asked for.
        pixels: as many as the model reads, uint8 [crop, crop, 3] each; None is the blank picture.
    """

    tweet: Tweet
    text: str
    words: tuple[Word, ...]
    windows: tuple[EntityWindow, ...]
    pixels: tuple[Pixels | None, ...]

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """Of the windows."""
        return tuple(window.encoding for window in self.windows)

    @property
    def cut_words(self) -> int:
        """How many words have pieces, but none that is read."""
        return sum(encoding.cut_words for encoding in self.encodings)

    @property
    def length(self) -> int:
        """Pieces of its longest text, which the others of a batch are padded to."""
        return max(len(encoding.input_ids) for encoding in self.encodings)

    @property
    def nbytes(self) -> int:
        """Memory of its pixels."""
        return sum(pixels.nbytes for pixels in self.pixels if pixels is not None)


class Preparer:
    """Turns tweets into `Prepared` for one bundle. Thread-safe.

    Args:
        bundle: a checked bundle; its limits of pieces and pixels may be lowered.
        window: read texts beyond the piece budget in overlapping windows instead of cutting them.
        on_bad_image: `error`, or `substitute`: take inf.png beside an unreadable whole picture, as published.
        threads: that decode the pictures of one tweet at the same time; by default as many as there are cores.
        max_length: most pieces of a text.
        max_pixels: most pixels of a picture.

    Raises:
        BundleError: as `load_tokenizer` and `TextEncoder`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        window: bool = False,
        on_bad_image: OnBadImage = "error",
        threads: int | None = None,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        if on_bad_image not in ("error", "substitute"):
            raise ValueError(f"on_bad_image must be error or substitute, not {on_bad_image!r}")
        self._manifest, pictures, limit = bundle.manifest, bundle.manifest.preprocessing, bundle.manifest.limits
        self._spec = replace(pictures, max_pixels=min(max_pixels or pictures.max_pixels, pictures.max_pixels))
        self.encoder = TextEncoder(
            load_tokenizer(bundle),
            min(max_length or limit.max_length, limit.max_length),
            markers=bundle.task == "re",
        )
        self._window, self._on_bad_image = window, on_bad_image
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "hvpnet-pictures")

    def __call__(self, tweet: Tweet) -> Prepared:
        """Prepare one tweet.

        Raises:
            TextError: the text is empty or its marked pair is missing or impossible.
            PictureError: a picture or box cannot be used.
            InputError: the tweet contradicts itself.
        """
        text, words = _words(tweet)
        spelled = [word.text for word in words]
        if self._window and self._manifest.task == "ner":
            windows = self.encoder.entity_windows(spelled)
        else:
            windows = [EntityWindow(self._encode(tweet, spelled), 0, (0, len(words)))]
        return Prepared(tweet, text, tuple(words), tuple(windows), self._pixels(tweet))

    def _encode(self, tweet: Tweet, words: Sequence[str]) -> Encoding:
        if self._manifest.task == "ner":
            return self.encoder.encode_entities(words)
        if tweet.head is None or tweet.tail is None:
            raise TextError("relation extraction needs head and tail, each [start, end) in words")
        return self.encoder.encode_relation(words, tweet.head, tweet.tail, window=self._window)

    def _pixels(self, tweet: Tweet) -> tuple[Pixels | None, ...]:
        """Whole picture, then objects, filled up with blanks; only_obj has no whole picture, text_only none at all."""
        if tweet.objects and tweet.boxes:
            raise InputError("a tweet has objects or boxes, not both")
        if tweet.boxes and tweet.image is None:
            raise InputError("boxes need the image they are boxes of")
        slots = self._manifest.sizes.pictures
        if not slots:
            return ()
        spec, objects = self._spec, self._manifest.limits.max_objects
        reads_whole = slots > objects
        steps: list[Callable[[], Pixels | None]] = []
        if tweet.boxes and tweet.image is not None:
            image, name = self._open_whole(tweet.image)
            steps += [partial(to_pixels, image, spec, name=name)] if reads_whole else []
            steps += [partial(to_pixels, image, spec, box, name=name) for box in tweet.boxes[:objects]]
        elif reads_whole:
            steps.append(partial(self._load_whole, tweet.image))
        steps += [partial(load_pixels, crop, spec) for crop in tweet.objects[:objects]]
        return (*self._at_once(steps), *[None] * (slots - len(steps)))

    def _at_once(self, steps: Sequence[Callable[[], Pixels | None]]) -> list[Pixels | None]:
        if len(steps) == 1:  # most tweets: a second thread would only cost
            return [steps[0]()]
        return list(self._pool.map(lambda step: step(), steps))

    def _load_whole(self, picture: Picture | None) -> Pixels | None:
        if picture is None:
            return None
        image, name = self._open_whole(picture)
        return to_pixels(image, self._spec, name=name)

    def _open_whole(self, picture: Picture) -> tuple[Image.Image, str]:
        try:
            return open_picture(picture, self._spec), picture_name(picture)
        except PictureError:
            if self._on_bad_image == "error" or not isinstance(picture, str | Path):
                raise
        substitute = Path(picture).with_name(SUBSTITUTE)
        return open_picture(substitute, self._spec), str(substitute)


def _words(tweet: Tweet) -> tuple[str, list[Word]]:
    if (tweet.text is None) == (tweet.words is None):
        raise InputError("a tweet has text or words, and not both")
    if tweet.text is not None:
        return tweet.text, split_words(tweet.text)
    words = list(tweet.words or ())
    if isinstance(tweet.words, str) or not all(isinstance(word, str) for word in words):
        raise TextError("words must be a list of strings")
    placed, start = [], 0
    for word in words:
        placed.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), placed
