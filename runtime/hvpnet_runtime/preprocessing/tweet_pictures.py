"""Pictures of a tweet, each known by a key before it is decoded, so that one seen before need not be.

The key of a part of a file is a digest of the file's bytes, of the box, and of whatever else decides on its pixels and
on whether they are refused. So a key that is known says that this very part was read before, and not refused. Names and
dates of files say nothing. PIL images and arrays are no files: they are resized, and known by their pixels.
"""

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from threading import Lock
from typing import TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.preprocessing.boxes import Edges, whole_pixels
from hvpnet_runtime.preprocessing.encoded_picture import EncodedPicture
from hvpnet_runtime.preprocessing.pictures import (
    BYTES,
    MAX_FILE_BYTES,
    Jpeg,
    OnBadImage,
    Pixels,
    digest,
    open_picture,
    or_substitute,
    picture_name,
    resized_size,
    to_pixels,
)
from hvpnet_runtime.types import Box, FoundObject, Picture

_LOCKS = 64  # so that different pictures seldom wait for each other
_REFUSED = 256  # pictures that are remembered as refused


@dataclass(frozen=True)
class PreparedPicture:
    """A picture, or a part of one, ready for the vision graph.

    What its pixels are made of stays with it, so whoever knew its key may forget it again.

    Attributes:
        key: 16 bytes that are equal for equal pictures: the key of the prefix cache.
        nbytes: memory that it may take: of its pixels and its file. It depends on the picture alone and not on what was
            seen before, for a stream makes its batches by it.
        source: its pixels uint8 [crop, crop, 3]; of one whose key was known, what decodes them.
    """

    key: bytes
    nbytes: int
    source: Pixels | Callable[[], Pixels]

    @property
    def is_decoded(self) -> bool:
        """Whether its pixels are there."""
        return isinstance(self.source, np.ndarray)

    @property
    def pixels(self) -> Pixels:
        """Pixels of it, uint8 [crop, crop, 3], decoded now if they are not there."""
        return self.source if isinstance(self.source, np.ndarray) else self.source()


Step: TypeAlias = Callable[[], PreparedPicture]
"""Prepares one picture, in any thread."""


class WholePicture:
    """A picture that objects may be found in; it is decoded when that is asked for.

    Attributes:
        key: 16 bytes that are equal for equal pictures, read under the same limits.

    Args:
        key: see above.
        spec: sizes and limits.
        decode: the picture decoded, and its own width and height, for a square of this side; see
            `EncodedPicture.whole`.
    """

    def __init__(
        self, key: bytes, spec: PictureSpec, decode: Callable[[int], tuple[Image.Image, tuple[int, int]]]
    ) -> None:
        self.key, self._spec, self._decode = key, spec, decode
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture that was decoded."""
        if self._size is None:
            raise RuntimeError("the picture was not decoded yet")
        return self._size

    def decode(self, side: int) -> Pixels:
        """The pixels, uint8 [height, width, 3], for whoever resizes them to a square of this side.

        They may be fewer than a large JPEG has, where that was asked for.

        Raises:
            PictureError: it cannot be decoded.
        """
        image, self._size = self._decode(side)
        return np.asarray(image)

    def has_crop(self, box: tuple[int, int, int, int]) -> bool:
        """Whether a crop can be made of this part: it is not too elongated."""
        try:
            resized_size((box[2] - box[0], box[3] - box[1]), self._spec, "<object>")
        except PictureError:
            return False
        return True


Find: TypeAlias = Callable[[WholePicture], tuple[FoundObject, ...]]
"""Finds objects in a picture."""


class PictureReader:
    """Prepares pictures, and decodes those whose keys are not known. Thread-safe.

    Attributes:
        settings: the arguments `spec`, `jpeg` and `on_bad_image`, which decide on pixels and refusals.
        known: as given.

    Args:
        spec: sizes and limits.
        jpeg: `full`, or `scaled`: decode large JPEGs at a fraction of their size.
        on_bad_image: see `or_substitute`.
        known: keys of pictures whose pixels are not needed.
    """

    def __init__(self, spec: PictureSpec, jpeg: Jpeg, on_bad_image: OnBadImage, known: Container[bytes]) -> None:
        self.settings, self.known = (spec, jpeg, on_bad_image), known
        self._spec, self._jpeg, self._on_bad_image = self.settings
        self._in_use: WeakValueDictionary[bytes, PreparedPicture] = WeakValueDictionary()
        self._refused: OrderedDict[bytes, str] = OrderedDict()
        self._last: tuple[bytes, dict[int, Image.Image]] | None = None
        self._locks = [Lock() for _ in range(_LOCKS)]

    def together(self, other: "PictureReader") -> "PictureReader | None":
        """One reader for two bundles, to which a picture is known if both know it; None if they read it differently."""
        if self.settings != other.settings:
            return None
        return PictureReader(*self.settings, _KnownToBoth(self.known, other.known))

    def whole(self, picture: Picture) -> PreparedPicture:
        """The whole picture of a tweet, or what is taken for one that cannot be used.

        Raises:
            PictureError: as `or_substitute`, `open_picture` and `to_pixels`.
        """
        return or_substitute(picture, self._on_bad_image, self.crop)

    def crop(self, picture: Picture) -> PreparedPicture:
        """An object crop, which nothing is taken for.

        A file that several tweets show at once is decoded once, as long as one of them is in use.

        Raises:
            PictureError: as `open_picture` and `to_pixels`.
        """
        if isinstance(picture, np.ndarray | Image.Image):
            return _prepare_image(open_picture(picture, self._spec), self._spec, None, picture_name(picture))
        file = EncodedPicture.read(picture, self._spec, self._jpeg)
        (key,) = self._keys(file, [None])
        with self._lock_of(file):  # whoever comes second waits for the first
            found = self._in_use.get(key)
            if found is None:
                (step,) = self._parts_of(file, [None], [key])
                found = self._in_use[key] = step()
            return found

    def forget(self) -> None:
        """Let go of the picture that was decoded last, which is kept for further boxes of it."""
        self._last = None

    def all_seen(self, pictures: Sequence[Picture | None]) -> list[PreparedPicture | None] | None:
        """Whole pictures, if all are bytes of files whose keys are known: asking other threads would take longer.

        Otherwise None, at the first that is not.
        """
        prepared: list[PreparedPicture | None] = []
        for picture in pictures:
            if picture is None:
                prepared.append(None)
            elif isinstance(picture, bytes) and 0 < len(picture) <= MAX_FILE_BYTES and (seen := self._seen(picture)):
                prepared.append(seen)
            else:
                return None
        return prepared

    def _seen(self, picture: bytes) -> PreparedPicture | None:
        file = EncodedPicture.read(picture, self._spec, self._jpeg)
        (key,) = self._keys(file, [None])
        return _prepare_part(file, key, file.pixels, later=True) if key in self.known else None

    def parts(self, picture: Picture, boxes: Sequence[Box | None]) -> list[Step]:
        """Boxes of a whole picture, or the whole (None): it is read and decoded now, the steps cut and resize.

        Raises:
            PictureError: as `or_substitute` and `open_picture`, or a box is not four numbers; a step raises as
                `to_pixels`.
        """
        name = picture_name(picture)
        for box in boxes:
            _edges(box, name)  # what is wrong with a box, no other picture can mend
        return or_substitute(picture, self._on_bad_image, partial(self._steps, boxes))

    def parts_found(self, picture: Picture, find: Find, *, whole: bool) -> tuple[tuple[FoundObject, ...], list[Step]]:
        """Objects found in a picture, and the parts of it as `parts` makes them: the whole, if asked for, and theirs.

        It is decoded once, and not at all if neither `find` nor anybody else needs its pixels.

        Raises:
            PictureError: as `parts`; and whatever `find` raises.
        """
        return or_substitute(picture, self._on_bad_image, partial(self._found, find, whole))

    def _found(self, find: Find, whole: bool, picture: Picture) -> tuple[tuple[FoundObject, ...], list[Step]]:  # noqa: FBT001  bound by place
        parts: list[Box | None] = [None] if whole else []
        if isinstance(picture, np.ndarray | Image.Image):
            image, name = open_picture(picture, self._spec), picture_name(picture)
            facts = repr((image.size, self._spec)).encode()
            key = sha256(digest(np.asarray(image)) + facts).digest()[:16]
            found = find(WholePicture(key, self._spec, lambda _: (image, image.size)))
            parts += [each.box for each in found]
            return found, [partial(_prepare_image, image, self._spec, box, name) for box in parts]
        file = EncodedPicture.read(picture, self._spec, self._jpeg)
        (key,), last = self._keys(file, [None]), self._last
        images = last[1] if last is not None and last[0] == file.digest else {}
        found = find(WholePicture(key, self._spec, partial(self._whole, file, images)))
        if images:  # for other queries
            self._last = file.digest, images
        parts += [each.box for each in found]
        keys = self._keys(file, [_edges(box, file.name) for box in parts])
        with self._lock_of(file):
            return found, self._parts_of(file, parts, keys, images)

    def _whole(
        self, file: EncodedPicture, images: dict[int, Image.Image], side: int
    ) -> tuple[Image.Image, tuple[int, int]]:
        with self._decoding(file):
            return file.whole(side, images)

    def _steps(self, boxes: Sequence[Box | None], picture: Picture) -> list[Step]:
        if isinstance(picture, np.ndarray | Image.Image):
            image, name = open_picture(picture, self._spec), picture_name(picture)
            return [partial(_prepare_image, image, self._spec, box, name) for box in boxes]
        file = EncodedPicture.read(picture, self._spec, self._jpeg)
        keys = self._keys(file, [_edges(box, file.name) for box in boxes])
        with self._lock_of(file):
            return self._parts_of(file, boxes, keys)

    def _parts_of(
        self,
        file: EncodedPicture,
        boxes: Sequence[Box | None],
        keys: Sequence[bytes],
        images: dict[int, Image.Image] | None = None,
    ) -> list[Step]:
        is_known = [key in self.known for key in keys]  # once: the answer may change
        unknown = [box for box, known in zip(boxes, is_known, strict=True) if not known]
        cuts = iter(self._cuts(file, unknown, images) if unknown else [])
        return [
            partial(_prepare_part, file, key, partial(file.pixels, box) if known else next(cuts), later=known)
            for key, box, known in zip(keys, boxes, is_known, strict=True)
        ]

    def _cuts(
        self, file: EncodedPicture, boxes: Sequence[Box | None], images: dict[int, Image.Image] | None
    ) -> list[Callable[[], Pixels]]:
        """Decode a file, but for `images` of it that were decoded before, by the fraction of their size."""
        last = self._last
        if images:
            last = file.digest, images
        elif last is None or last[0] != file.digest:
            last = file.digest, {}
        with self._decoding(file):
            cuts = file.cuts(boxes, last[1], resizable=self._on_bad_image == "substitute")
        if boxes != [None]:  # a whole picture is seldom cut again
            self._last = last
        return cuts

    @contextmanager
    def _decoding(self, file: EncodedPicture) -> Iterator[None]:
        """One without a name that was refused lately is refused again, without another look."""
        nameless = file.name == BYTES
        if nameless and (reason := self._refused.get(file.digest)) is not None:
            raise PictureError(reason)
        try:
            yield
        except PictureError as error:
            if nameless and not isinstance(error.__cause__, MemoryError):
                self._refused[file.digest] = str(error)
                while len(self._refused) > _REFUSED:
                    self._refused.popitem(last=False)
            raise

    def _lock_of(self, file: EncodedPicture) -> Lock:
        return self._locks[file.digest[0] % _LOCKS]

    def _keys(self, file: EncodedPicture, all_edges: Sequence[Edges | None]) -> list[bytes]:
        facts = (self._spec.resize, self._spec.crop, self._spec.max_pixels, self._jpeg, self._on_bad_image)
        return [sha256(file.digest + repr((facts, edges)).encode()).digest()[:16] for edges in all_edges]


@dataclass(frozen=True)
class _KnownToBoth:
    """The keys that stand in both containers."""

    first: Container[bytes]
    second: Container[bytes]

    def __contains__(self, key: object) -> bool:
        return key in self.first and key in self.second


def _edges(box: Box | None, name: str) -> Edges | None:
    return None if box is None else whole_pixels(box, name)


def _prepare_image(image: Image.Image, spec: PictureSpec, box: Box | None, name: str) -> PreparedPicture:
    pixels = to_pixels(image, spec, box, name=name)
    return PreparedPicture(digest(pixels), pixels.nbytes, pixels)


def _prepare_part(file: EncodedPicture, key: bytes, cut: Callable[[], Pixels], *, later: bool) -> PreparedPicture:
    """A part of a file, cut now or later."""
    nbytes = 3 * file.spec.crop**2 + len(file.data)
    return PreparedPicture(key, nbytes, cut if later else cut())
