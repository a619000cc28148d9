"""A tweet to token ids and pixels: everything that needs no backend, so that it can run elsewhere or ahead."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from hvpnet_runtime.bundle import Bundle, Manifest
from hvpnet_runtime.errors import BundleError, InputError, TextError
from hvpnet_runtime.preprocessing.encode_text import Encoding, EntityWindow, TextEncoder
from hvpnet_runtime.preprocessing.pictures import OnBadImage, load_pixels, open_whole, to_pixels
from hvpnet_runtime.preprocessing.split_words import Word, split_words
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.types import Picture, Tweet

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """One tweet, ready for the graphs.

    Attributes:
        tweet: what was given.
        text: what the words' offsets count in.
        words: with their offsets in `text`.
        windows: of entity extraction; one unless the text is long and windows were asked for.
        encoding: of relation extraction.
        pixels: as many as the model reads, uint8 [crop, crop, 3] each; None is the blank picture.
    """

    tweet: Tweet
    text: str
    words: tuple[Word, ...]
    windows: tuple[EntityWindow, ...]
    encoding: Encoding | None
    pixels: tuple[Pixels | None, ...]

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """What the text graph reads: one row each."""
        return (self.encoding,) if self.encoding else tuple(window.encoding for window in self.windows)

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
        manifest: task, sizes and limits of the bundle.
        encoder: of the bundle's tokeniser.
        window: read texts beyond the piece budget in overlapping windows instead of cutting them.
        on_bad_image: `error`, or `substitute`: take inf.png beside an unreadable whole picture, as published.
        threads: that decode the pictures of one tweet at the same time; by default as many as there are cores.
    """

    def __init__(
        self,
        manifest: Manifest,
        encoder: TextEncoder,
        *,
        window: bool,
        on_bad_image: OnBadImage,
        threads: int | None = None,
    ) -> None:
        if on_bad_image not in ("error", "substitute"):
            raise ValueError(f"on_bad_image must be error or substitute, not {on_bad_image!r}")
        self.encoder = encoder
        self._manifest = manifest
        self._window, self._on_bad_image = window, on_bad_image
        self._origin = Origin()
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "hvpnet-pictures")

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        window: bool = False,
        on_bad_image: OnBadImage = "error",
        threads: int | None = None,
        max_length: int | None = None,
        max_pixels: int | None = None,
    ) -> "Preparer":
        """With the bundle's own tokeniser; the bundle's limits of pieces and pixels may be lowered.

        Raises:
            BundleError: it is no tokeniser file, or not the text graph's.
        """
        manifest = bundle.manifest
        pictures, limits = manifest.preprocessing, manifest.limits
        pictures = replace(pictures, max_pixels=min(max_pixels or pictures.max_pixels, pictures.max_pixels))
        limits = replace(limits, max_length=min(max_length or limits.max_length, limits.max_length))
        encoder = _text_encoder(bundle, limits.max_length)
        manifest = replace(manifest, preprocessing=pictures, limits=limits)
        return cls(manifest, encoder, window=window, on_bad_image=on_bad_image, threads=threads)

    def __call__(self, tweet: Tweet) -> Prepared:
        """Prepare one tweet.

        Raises:
            TextError: the text is empty or its marked pair is missing or impossible.
            PictureError: a picture or box cannot be used.
            InputError: the tweet contradicts itself.
            BackendError: this process was forked from the one that made the preparer.
        """
        self._origin.check()
        text, words = _words(tweet)
        spelled = [word.text for word in words]
        windows: Sequence[EntityWindow] = ()
        encoding = None
        if self._manifest.task == "re":
            if tweet.head is None or tweet.tail is None:
                raise TextError("relation extraction needs head and tail, each [start, end) in words")
            encoding = self.encoder.encode_relation(spelled, tweet.head, tweet.tail, window=self._window)
        elif self._window:
            windows = self.encoder.entity_windows(spelled)
        else:
            windows = [EntityWindow(self.encoder.encode_entities(spelled), 0, (0, len(words)))]
        return Prepared(tweet, text, tuple(words), tuple(windows), encoding, self._pixels(tweet))

    def _pixels(self, tweet: Tweet) -> tuple[Pixels | None, ...]:
        """Whole picture, then objects, filled up with blanks; only_obj has no whole picture, text_only none at all."""
        if tweet.objects and tweet.boxes:
            raise InputError("a tweet has objects or boxes, not both")
        if tweet.boxes and tweet.image is None:
            raise InputError("boxes need the image they are boxes of")
        slots = self._manifest.sizes.pictures
        if not slots:
            return ()
        spec, objects = self._manifest.preprocessing, self._manifest.limits.max_objects
        reads_whole = slots > objects
        steps: list[Callable[[], Pixels | None]] = []
        if tweet.boxes and tweet.image is not None:
            image, name = open_whole(tweet.image, spec, self._on_bad_image)
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
        image, name = open_whole(picture, self._manifest.preprocessing, self._on_bad_image)
        return to_pixels(image, self._manifest.preprocessing, name=name)


def _text_encoder(bundle: Bundle, max_length: int) -> TextEncoder:
    try:
        tokenizer = Tokenizer.from_file(str(bundle.path / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{bundle.path / 'tokenizer.json'} is not a tokeniser file: {error}") from error
    if tokenizer.get_vocab_size() != bundle.sizes.vocabulary:
        raise BundleError(
            f"tokenizer.json has {tokenizer.get_vocab_size()} pieces, the text graph {bundle.sizes.vocabulary}"
        )
    return TextEncoder(tokenizer, max_length, markers=bundle.task == "re")


def _words(tweet: Tweet) -> tuple[str, list[Word]]:
    if (tweet.text is None) == (tweet.words is None):
        raise InputError("a tweet has text or words, and not both")
    if tweet.text is not None:
        if not isinstance(tweet.text, str):
            raise TextError(f"text must be a string, not {type(tweet.text).__name__}")
        return tweet.text, split_words(tweet.text)
    words = list(tweet.words or ())
    if isinstance(tweet.words, str) or not all(isinstance(word, str) for word in words):
        raise TextError("words must be a list of strings")
    placed, start = [], 0
    for word in words:
        placed.append(Word(word, start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), placed
