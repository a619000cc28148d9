"""The tweets that are timed: texts of an exact number of pieces, and photographs that no round has shown before."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer

from hvpnet.data.synthetic.scenes import draw_scene
from hvpnet_runtime import Tweet
from hvpnet_runtime.preprocessing.encode_text import MARKERS

PICTURE_SIZE = (600, 450)
"""Width and height, of whole pictures and objects alike."""

ALL_NEW = "all new"
FOUND = "one new, objects found"
PICTURES = {
    ALL_NEW: (True, True, True, True),
    "one new, three seen": (True, False, False, False),
    "one new, no objects": (True,),
    "all seen": (False, False, False, False),
    FOUND: (True,),
}
"""Which of a tweet's whole picture and objects are new; the others were shown in the round before.

Objects of `FOUND` are not given: the bundle's grounder finds them.
"""

_MAX_BATCH = 32


@dataclass(frozen=True, order=True)
class Case:
    """A batch of so many tweets, of so many pieces each, [CLS], [SEP] and markers included; see `PICTURES`."""

    batch: int
    length: int
    pictures: str = ALL_NEW

    @property
    def name(self) -> str:
        """For tables."""
        return f"batch {self.batch}, {self.length} tokens, {self.pictures}"


class Workload:
    """Makes the tweets of every round, the same in every process, of words that a bundle's tokeniser leaves whole."""

    def __init__(self, bundle: Path) -> None:
        self._marked = json.loads((bundle / "manifest.json").read_text("utf-8"))["task"] == "re"
        self._words = whole_words(Tokenizer.from_file(str(bundle / "tokenizer.json")))
        kinds = enumerate(("PER", "LOC", "ORG", "MISC"))
        pictures = [draw_scene(kind, np.random.default_rng(seed)).picture for seed, kind in kinds]
        self._scenes = [np.asarray(each.resize(PICTURE_SIZE, Image.Resampling.BICUBIC)) for each in pictures]

    def tweets(self, case: Case, number: int) -> list[Tweet]:
        """The tweets of a round, by its number, from 0.

        What it shows anew, no other round does, and no other case in this round but one of the same `pictures`.
        """
        return [self._tweet(case, number, row) for row in range(case.batch)]

    def _tweet(self, case: Case, number: int, row: int) -> Tweet:
        count = case.length - 2 - (len(MARKERS) if self._marked else 0)
        words = np.random.default_rng([number, row]).choice(self._words, count).tolist()
        new = ((number + 1) * len(PICTURES) + list(PICTURES).index(case.pictures)) * _MAX_BATCH + row
        shown = enumerate(PICTURES[case.pictures])
        image, *objects = (self._photo(slot, new if is_new else row) for slot, is_new in shown)
        # The pair is never the end of a text: published loaders leave out a closing marker there.
        head, tail = ((0, 1), (2, 3)) if self._marked else (None, None)
        given = None if case.pictures == FOUND else tuple(objects)
        return Tweet(words=words, image=image, objects=given, head=head, tail=tail)

    def _photo(self, slot: int, number: int) -> bytes:
        """JPEG bytes of a scene shifted by `number` pixels, row after row: other pixels for every number."""
        width, height = PICTURE_SIZE
        shift, file = divmod(number % (width * height), width), BytesIO()
        Image.fromarray(np.roll(self._scenes[slot], shift, axis=(0, 1))).save(file, "JPEG", quality=85)
        return file.getvalue()


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """Lower-case ASCII words of the vocabulary that the tokenizer leaves whole, in alphabetical order."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    return [word for word in words if tokenizer.encode(word, add_special_tokens=False).tokens == [word]]
