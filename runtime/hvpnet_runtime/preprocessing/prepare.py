"""A tweet to token ids and pixels: everything that needs no backend, so that it can run elsewhere or ahead."""

import os
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Protocol, Self, TypeAlias, TypeVar, get_args

from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import InputError, TextError, brief
from hvpnet_runtime.preprocessing.encode_text import Encoding, EntityWindow, TextEncoder
from hvpnet_runtime.preprocessing.given import items, words_of
from hvpnet_runtime.preprocessing.mark_pair import mark_characters, mention
from hvpnet_runtime.preprocessing.pictures import Jpeg, OnBadImage, Pixels
from hvpnet_runtime.preprocessing.split_words import Word
from hvpnet_runtime.preprocessing.tokenizer import load_tokenizer
from hvpnet_runtime.preprocessing.tweet_pictures import PictureReader, PreparedPicture, Step, WholePicture
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.types import FoundObject, Mention, ObjectSource, Picture, Tweet

Made = TypeVar("Made")

Pictures: TypeAlias = tuple[PreparedPicture | None, ...]
"""As many as a model reads; None is the blank picture."""


@dataclass(frozen=True)
class Prepared:
    """One tweet, ready for the graphs.

    Attributes:
        tweet: what was given.
        text: what the words' offsets count in.
        words: with their offsets in `text`.
        windows: what the text graph reads: one row unless the text is long and windows were asked for.
        mentions: of relation extraction: head and tail.
        pictures: see `Pictures`.
        objects: found in the picture; None where none are looked for in any tweet.
    """

    tweet: Tweet
    text: str
    words: tuple[Word, ...]
    windows: tuple[EntityWindow, ...]
    mentions: tuple[Mention, ...]
    pictures: Pictures
    objects: tuple[FoundObject, ...] | None = None

    @property
    def encodings(self) -> tuple[Encoding, ...]:
        """Encodings of the windows."""
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
        """Memory that its pictures may take."""
        return sum(picture.nbytes for picture in self.pictures if picture is not None)

    def lightened(self) -> Self:
        """The same without the tweet's own pictures, which nobody reads any more: they need not travel."""
        return replace(self, tweet=replace(self.tweet, image=None, objects=None, boxes=None))


class Finder(Protocol):
    """Finds objects in the picture of a tweet."""

    def __call__(
        self, picture: WholePicture, words: Sequence[str], pairs: Sequence[Sequence[Mention]]
    ) -> list[tuple[FoundObject, ...]]:
        """Objects in the picture of a tweet with these words, for each pair of head and tail; see `Finding`."""
        ...


class Preparer:
    """Turns tweets into `Prepared` for one bundle. Thread-safe.

    Args:
        bundle: a checked bundle; its limits of pieces and pixels may be lowered.
        window: read texts beyond the piece budget in overlapping windows instead of cutting them.
        on_bad_image: `error`, or `substitute`: take inf.png beside an unreadable whole picture, as published.
        threads: that decode the pictures of one tweet at the same time; by default as many as there are cores.
        max_length: most pieces of a text.
        max_pixels: most pixels of a picture.
        jpeg: `full`, or `scaled`: decode large JPEGs at a half, a quarter or an eighth of their size, see
            `EncodedPicture`.
        known: keys of pictures whose pixels the backend does not need, such as a prefix cache: they are not decoded.
        objects: see `ObjectSource`.
        find: finds objects, see `ObjectFinder`; None where nothing does.

    Attributes:
        encoder: tokenises.
        reader: reads the pictures.
        without_objects: tweets with a picture that came without objects, where nothing finds them.

    Raises:
        BundleError: as `load_tokenizer` and `TextEncoder`.
        InputError: an option is impossible.
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
        jpeg: Jpeg = "full",
        known: Container[bytes] = frozenset(),
        objects: ObjectSource | None = None,
        find: Finder | None = None,
    ) -> None:
        if on_bad_image not in ("error", "substitute"):
            raise InputError(f"on_bad_image must be error or substitute, not {brief(on_bad_image)}")
        if jpeg not in ("full", "scaled"):
            raise InputError(f"jpeg must be full or scaled, not {brief(jpeg)}")
        if not isinstance(window, bool):
            raise InputError(f"window must be True or False, not {brief(window)}")
        if objects not in (None, *get_args(ObjectSource)):
            raise InputError(f"objects must be given, found or none, not {brief(objects)}")
        if objects == "found" and find is None:
            raise InputError("objects are to be found, and there is nothing that finds them")
        self._objects, self._find = objects, find
        self.without_objects, self._count = 0, Lock()
        self._manifest, pictures, limit = bundle.manifest, bundle.manifest.preprocessing, bundle.manifest.limits
        spec = replace(pictures, max_pixels=min(max_pixels or pictures.max_pixels, pictures.max_pixels))
        self.reader = PictureReader(spec, jpeg, on_bad_image, known)
        self.encoder = TextEncoder(
            load_tokenizer(bundle),
            min(max_length or limit.max_length, limit.max_length),
            markers=bundle.task == "re",
        )
        self._window = window
        self._origin = Origin()
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, "hvpnet-pictures")

    def __call__(self, tweet: Tweet) -> Prepared:
        """Prepare one tweet.

        Raises:
            TextError: the text is empty or its marked pair is missing or impossible.
            PictureError: a picture or box cannot be used.
            InputError: it is no `Tweet`, or contradicts itself.
            BackendError: this process was forked from the one that made the preparer.
        """
        self._origin.check()
        if not isinstance(tweet, Tweet):
            cure = "make one with Tweet(**values)" if isinstance(tweet, Mapping) else "make one with Tweet(text=...)"
            raise InputError(f"a tweet must be a Tweet, not {type(tweet).__name__}: {cure}")
        text, words = words_of(tweet)
        windows: Sequence[EntityWindow]
        mentions: tuple[Mention, ...] = ()
        if self._manifest.task == "re":
            encoding, mentions, words = self._relation(tweet, text, words)
            windows = [EntityWindow(encoding, 0, (0, len(words)))]
        elif self._window:
            windows = self.encoder.entity_windows([word.text for word in words])
        else:
            encoding = self.encoder.encode_entities([word.text for word in words])
            windows = [EntityWindow(encoding, 0, (0, len(words)))]
        pictures, objects = self.pictures(tweet, words, mentions)
        return Prepared(tweet, text, tuple(words), tuple(windows), mentions, pictures, objects)

    def forget(self) -> None:
        """Free what is kept for the next tweets: the picture that was decoded last, if boxes were cut of it."""
        self.reader.forget()

    def _relation(
        self, tweet: Tweet, text: str, words: list[Word]
    ) -> tuple[Encoding, tuple[Mention, Mention], list[Word]]:
        """The encoding, head and tail as they are read, and the words, which the pair's edges may split."""
        head, tail = tweet.head, tweet.tail
        if head is None or tail is None:
            unit = "words" if tweet.text is None else "characters of the text"
            raise TextError(f"relation extraction needs head and tail, each [start, end) in {unit}")
        if tweet.text is not None:
            words, head, tail = mark_characters(text, words, head, tail)
        encoding = self.encoder.encode_relation([word.text for word in words], head, tail, window=self._window)
        return encoding, (mention(text, words, head), mention(text, words, tail)), words

    def pixels(self, pictures: Sequence[PreparedPicture]) -> list[Pixels]:
        """Pixels of pictures, decoded now where that was left out because their keys were known."""
        if all(picture.is_decoded for picture in pictures):
            return [picture.pixels for picture in pictures]
        return self._at_once([partial(getattr, picture, "pixels") for picture in pictures])

    def pictures(
        self, tweet: Tweet, words: Sequence[Word], mentions: Sequence[Mention]
    ) -> tuple[Pictures, tuple[FoundObject, ...] | None]:
        """Whole picture, then objects, filled up with blanks; and the objects that were found.

        Models of the variant only_obj read no whole picture, those of text_only none at all.

        Raises:
            PictureError: a picture or box cannot be used.
            InputError: the tweet contradicts itself.
            BackendError: the grounder failed.
        """
        crops, boxes = items("objects", tweet.objects), items("boxes", tweet.boxes)
        if crops and boxes:
            raise InputError("a tweet has objects or boxes, not both")
        if boxes and tweet.image is None:
            raise InputError("boxes need the image they are boxes of")
        image, objects = tweet.image, self._manifest.limits.max_objects
        found: tuple[FoundObject, ...] | None = None if self._find is None else ()
        if not self._manifest.sizes.pictures:
            return (), found
        if self._objects in ("found", "none"):
            crops, boxes = [], []
        if image is not None and self._find is not None and self._lacks_objects(tweet):
            return self.pictures_found(image, words, [mentions])[0]
        made: Sequence[PreparedPicture | None]
        if boxes and image is not None:
            made = self._at_once(self.reader.parts(image, [*[None] * self._reads_whole, *boxes[:objects]]))
            return self._filled(made), found
        made = self._whole_and_crops([image] * self._reads_whole, crops[:objects])
        self._note_missing(tweet)
        return self._filled(made), found

    def pictures_found(
        self, image: Picture, words: Sequence[Word], pairs: Sequence[Sequence[Mention]]
    ) -> list[tuple[Pictures, tuple[FoundObject, ...]]]:
        """As `pictures`, for several pairs of a tweet whose objects are to be found, in one look at its picture.

        Raises:
            PictureError: the picture cannot be used.
            BackendError: the grounder failed.
        """
        texts, found = [word.text for word in words], list[tuple[FoundObject, ...]]()

        def find(picture: WholePicture) -> tuple[FoundObject, ...]:
            found[:] = [] if self._find is None else self._find(picture, texts, pairs)
            return tuple(dict.fromkeys(each for objects in found for each in objects))

        every, steps = self.reader.parts_found(image, find, whole=self._reads_whole)
        made = self._at_once(steps)
        whole, crops = made[: self._reads_whole], dict(zip(every, made[self._reads_whole :], strict=True))
        return [(self._filled([*whole, *(crops[each] for each in objects)]), objects) for objects in found]

    def check_picture(self, image: Picture) -> None:
        """Refuse a picture that `pictures_found` could not use.

        Raises:
            PictureError: it is one.
        """

        def look(picture: WholePicture) -> tuple[FoundObject, ...]:
            picture.decode(self._manifest.preprocessing.resize)
            return ()

        if self._reads_whole:  # the other model may have decoded it just now
            self._whole_and_crops([image], ())
        else:
            self.reader.parts_found(image, look, whole=False)

    @property
    def _reads_whole(self) -> bool:
        return self._manifest.sizes.pictures > self._manifest.limits.max_objects

    def _filled(self, pictures: Sequence[PreparedPicture | None]) -> Pictures:
        """Pictures, and blanks where the model reads more."""
        return (*pictures, *[None] * (self._manifest.sizes.pictures - len(pictures)))

    def _lacks_objects(self, tweet: Tweet) -> bool:
        """Whether the objects of a tweet are to be found."""
        return self._objects == "found" or (self._objects is None and tweet.objects is None and tweet.boxes is None)

    def finds_by_text(self, tweet: Tweet) -> bool:
        """Whether objects are looked for in the picture of a tweet by what its text says: for relations, the pair."""
        if self._find is None or tweet.image is None or not self._lacks_objects(tweet):
            return False
        grounder = self._manifest.grounder
        return grounder is not None and grounder.queries == "text"

    def with_reader(self, reader: PictureReader) -> Self:
        """The same, but for what reads the pictures."""
        other = copy(self)
        other.reader = reader
        return other

    def _note_missing(self, tweet: Tweet) -> None:
        if self._objects is None and tweet.image is not None and self._lacks_objects(tweet):
            with self._count:
                self.without_objects += 1

    def _whole_and_crops(
        self, whole: Sequence[Picture | None], crops: Sequence[Picture]
    ) -> Sequence[PreparedPicture | None]:
        if (seen := self.reader.all_seen([*whole, *crops])) is not None:
            return seen
        steps: list[Step | Callable[[], None]] = [
            _no_picture if picture is None else partial(self.reader.whole, picture) for picture in whole
        ]
        return self._at_once([*steps, *(partial(self.reader.crop, crop) for crop in crops)])

    def _at_once(self, steps: Sequence[Callable[[], Made]]) -> list[Made]:
        if len(steps) == 1:  # most tweets: a second thread would only cost
            return [steps[0]()]
        return list(self._pool.map(lambda step: step(), steps))


def _no_picture() -> None:
    """The step of a whole picture that is not there."""
