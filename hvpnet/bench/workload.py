"""The tweets that are timed: texts of an exact number of pieces, and photographs that no round has shown before."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from hvpnet.data.synthetic.scenes import draw_scene
from hvpnet_runtime.preprocessing.encode_text import MARKERS
from hvpnet_runtime.types import Tweet

PICTURE_SIZE = (600, 450)
"""Width and height, of whole pictures and objects alike."""

OBJECTS = 3
MAX_BATCH = 32

Pictures: TypeAlias = Literal["all new", "one new, three seen", "one new, no objects", "all seen"]
_PICTURES = get_args(Pictures)

_JPEG_QUALITY = 85
_KINDS = ("PER", "LOC", "ORG", "MISC")


@dataclass(frozen=True)
class Case:
    """One shape of request.

    Attributes:
        batch: tweets.
        length: pieces of each, [CLS], [SEP] and markers included.
        pictures: which of the four of each tweet were shown in the round before.
    """

    batch: int
    length: int
    pictures: Pictures = "all new"

    @property
    def name(self) -> str:
        """For tables."""
        return f"batch {self.batch}, {self.length} tokens, {self.pictures}"


class Workload:
    """Makes the tweets of every round, the same ones wherever it is asked.

    Args:
        tokenizer: of the bundle; words that it leaves whole are taken from it.
        task: `ner` or `re`.
    """

    def __init__(self, tokenizer: Tokenizer, task: str) -> None:
        self._task = task
        self._words = whole_words(tokenizer)
        self._scenes = [_scene(kind, seed) for seed, kind in enumerate(_KINDS)]

    def tweets(self, case: Case, number: int) -> list[Tweet]:
        """The tweets of a round.

        Args:
            case: their shape.
            number: of the round, from 0; what it shows anew, no other round does, and no other case in this round but
                one of the same `pictures`.
        """
        return [self._tweet(case, number, row) for row in range(case.batch)]

    def _tweet(self, case: Case, number: int, row: int) -> Tweet:
        marked = self._task == "re"
        count = case.length - 2 - (len(MARKERS) if marked else 0)
        words = np.random.default_rng([number, row]).choice(self._words, count).tolist()
        new = ((number + 1) * len(_PICTURES) + _PICTURES.index(case.pictures)) * MAX_BATCH + row
        seen = row
        whole = self._photo(0, seen if case.pictures == "all seen" else new)
        objects: tuple[bytes, ...] = ()
        if case.pictures != "one new, no objects":
            shown = new if case.pictures == "all new" else seen
            objects = tuple(self._photo(slot, shown) for slot in range(1, 1 + OBJECTS))
        # The pair is never the end of a text: published loaders leave out a closing marker there.
        head, tail = ((0, 1), (2, 3)) if marked else (None, None)
        return Tweet(words=words, image=whole, objects=objects, head=head, tail=tail)

    def _photo(self, slot: int, number: int) -> bytes:
        """JPEG bytes of a scene shifted by `number` pixels, row after row: other pixels for every number."""
        width, height = PICTURE_SIZE
        shift = number % (width * height)
        shifted = np.roll(self._scenes[slot], (shift // width, shift % width), axis=(0, 1))
        file = BytesIO()
        Image.fromarray(shifted).save(file, "JPEG", quality=_JPEG_QUALITY)
        return file.getvalue()


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """Lower-case ASCII words of the vocabulary that the tokenizer leaves whole, in alphabetical order."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    return [word for word in words if tokenizer.encode(word, add_special_tokens=False).tokens == [word]]


def _scene(kind: str, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    picture = draw_scene(kind, np.random.default_rng(seed)).picture
    return np.asarray(picture.resize(PICTURE_SIZE, Image.Resampling.BICUBIC))  # [height, width, 3]
