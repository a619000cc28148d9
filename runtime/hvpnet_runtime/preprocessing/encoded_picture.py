"""An image file in memory, and how its parts are decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Self

from PIL import Image

from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.preprocessing.boxes import whole_pixels
from hvpnet_runtime.preprocessing.pictures import (
    Jpeg,
    Pixels,
    decoded,
    open_file,
    picture_name,
    read_file,
    resized_size,
    to_pixels,
)
from hvpnet_runtime.types import Box

_SHRINKS = (8, 4, 2)
"""Fractions of their size that libjpeg decodes pictures at, in much less time."""

SPARE = 2
"""Pixels along the shorter side that a part of a picture keeps, for each that it is resized to."""


@dataclass(frozen=True)
class EncodedPicture:
    """An image file, which can be decoded whenever its pixels are wanted.

    Attributes:
        data: the file.
        name: how messages call it.
        spec: sizes and limits.
        jpeg: `full`, or `scaled`: decode large JPEGs at a fraction of their size.
    """

    data: bytes
    name: str
    spec: PictureSpec
    jpeg: Jpeg

    @classmethod
    def read(cls, picture: str | Path | bytes, spec: PictureSpec, jpeg: Jpeg) -> Self:
        """Read a file, once and whole.

        Raises:
            PictureError: as `read_file`.
        """
        name = picture_name(picture)
        return cls(read_file(picture, name), name, spec, jpeg)

    @cached_property
    def digest(self) -> bytes:
        """Digest of the file's bytes, SHA-256."""
        return sha256(self.data).digest()

    def cuts(
        self, boxes: Sequence[Box | None], images: dict[int, Image.Image] | None = None, *, resizable: bool = False
    ) -> list[Callable[[], Pixels]]:
        """Decode the picture, once for every size that is needed; what is returned cuts its parts, in any thread.

        Which size a part is cut of depends on that part alone.

        Args:
            boxes: parts, None for the whole picture.
            images: of this file that were decoded before, by the fraction of their size; grows by those that are now.
            resizable: refuse a picture whose whole cannot be resized, even if only boxes are wanted.

        Raises:
            PictureError: as `open_file` and `decoded`; what is returned raises as `to_pixels`.
        """
        opened = open_file(self.data, self.spec, self.name)
        size, cuts = opened.size, list[Callable[[], Pixels]]()
        images, is_fresh = {} if images is None else images, True
        if resizable:
            resized_size(size, self.spec, self.name)
        for box in boxes:
            shrink = self._shrink(opened.format, box, size, self.spec.resize)
            if shrink not in images:
                fresh = opened if is_fresh else open_file(self.data, self.spec, self.name)
                images[shrink], is_fresh = decoded(fresh, self.name, shrink), False
            cuts.append(partial(to_pixels, images[shrink], self.spec, box, name=self.name, size=size))
        return cuts

    def whole(self, side: int, images: dict[int, Image.Image]) -> tuple[Image.Image, tuple[int, int]]:
        """The whole picture decoded, and its own width and height, for whoever resizes it to a square of this side.

        Args:
            side: in pixels.
            images: as of `cuts`.

        Raises:
            PictureError: as `open_file` and `decoded`.
        """
        opened = open_file(self.data, self.spec, self.name)
        size, shrink = opened.size, self._shrink(opened.format, None, opened.size, side)
        if shrink not in images:
            images[shrink] = decoded(opened, self.name, shrink)
        return images[shrink], size

    def pixels(self, box: Box | None = None) -> Pixels:
        """The pixels of one part, uint8 [crop, crop, 3].

        Raises:
            PictureError: as `cuts`.
        """
        return self.cuts([box])[0]()

    def _shrink(self, file_format: str | None, box: Box | None, size: tuple[int, int], resize: int) -> int:
        """The picture is decoded at one in so many of its pixels, so that this part of it has enough of them."""
        if self.jpeg == "full" or file_format != "JPEG":
            return 1
        x0, y0, x1, y1 = (0, 0, *size) if box is None else whole_pixels(box, self.name)
        return next((each for each in _SHRINKS if min(x1 - x0, y1 - y0) // each >= SPARE * resize), 1)
