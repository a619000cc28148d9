"""Pictures to pixels, as published: Resize(256), CenterCrop(224).

Pixels equal those of torchvision's transforms on PIL images bit for bit, unless a JPEG is decoded at a fraction of its
size because somebody asked for that. They are uint8 [crop, crop, 3], which the vision graph normalises in its first
nodes.
"""

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.compiled import _pixels
from hvpnet_runtime.errors import PictureError, one_line
from hvpnet_runtime.files import open_regular
from hvpnet_runtime.preprocessing.boxes import edges_inside
from hvpnet_runtime.preprocessing.picture_files import FormatError, pixel_data
from hvpnet_runtime.processes import in_forks
from hvpnet_runtime.types import Box, Picture

OnBadImage: TypeAlias = Literal["error", "substitute"]
"""What a whole picture that cannot be read is: an error of its tweet, or, as to the published loaders, the picture
inf.png of the same folder."""

Jpeg: TypeAlias = Literal["full", "scaled"]
"""How large JPEGs are decoded: in full, or at a half, a quarter or an eighth of their size, though the shorter side of
what is resized never has less than twice the pixels that it is resized to. Pixels then differ a little from the
published ones."""

Pixels: TypeAlias = npt.NDArray[np.uint8]
Used = TypeVar("Used")

SUBSTITUTE = "inf.png"
"""What the published loaders take for a whole picture that cannot be read, from the same folder."""

MAX_FILE_BYTES = 64 * 2**20
"""Bytes of a picture file."""

_LONGEST_NAME = 200  # as long as messages show: some hand over a picture's base64 as its path


class _HeaderLock:
    """A lock that a forked process gets anew: a thread that is not there any more may have held it."""

    def __init__(self) -> None:
        self.renew()
        in_forks(self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()


_header = _HeaderLock()


BYTES = "<bytes>"
"""What messages call a file without a name."""


def picture_name(picture: Picture) -> str:
    """How messages call a picture: its path, or `<bytes>`, `<array>` or `<image>`."""
    if isinstance(picture, str | Path):
        name = str(picture)
        return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
    return {bytes: BYTES, np.ndarray: "<array>"}.get(type(picture), "<image>")


def load_pixels(picture: Picture, spec: PictureSpec, box: Box | None = None) -> Pixels:
    """Opens, crops and resizes one picture; for several boxes of one picture, `open_picture` once and `to_pixels` each.

    Args:
        picture: a path, the bytes of an image file, a PIL image, or an RGB array uint8 [height, width, 3].
        spec: sizes and limits.
        box: the part of the picture to take instead of the whole.

    Returns:
        RGB pixels uint8 [crop, crop, 3].

    Raises:
        PictureError: as `open_picture` and `to_pixels`.
    """
    return to_pixels(open_picture(picture, spec), spec, box, name=picture_name(picture))


def open_picture(picture: Picture, spec: PictureSpec) -> Image.Image:
    """Decodes a picture as the published loader does, `Image.open(picture).convert("RGB")`.

    EXIF rotation is ignored, and of an animation this is the first frame. Thread-safe; decoding releases the GIL.

    Args:
        picture: a path, the bytes of an image file, a PIL image, or an RGB array uint8 [height, width, 3].
        spec: for `max_pixels`, checked from the header before anything is decoded.

    Returns:
        A decoded image of mode RGB, independent of `picture`.

    Raises:
        PictureError: the file is missing, no picture, truncated, corrupt or too large, or the array is no RGB picture.
    """
    name = picture_name(picture)
    if isinstance(picture, np.ndarray):
        return decoded(_from_array(picture, name, spec), name)
    if isinstance(picture, Image.Image):
        _check_size(picture.width, picture.height, spec, name)
        image = decoded(picture, name)
        return image.copy() if image is picture else image
    with open_file(read_file(picture, name), spec, name) as opened:
        return decoded(opened, name)


def read_file(picture: str | Path | bytes, name: str) -> bytes:
    """The bytes of an image file.

    Raises:
        PictureError: there is no such file, it is empty or too large, or this is no picture at all.
    """
    if not isinstance(picture, bytes | str | Path):
        raise PictureError(f"a picture is a path, bytes, a PIL image or an array, not {type(picture).__name__}")
    try:
        if not isinstance(picture, bytes):
            with open_regular(picture) as file:
                picture = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"picture {name} cannot be opened: {reason}; check the path") from error
    if not picture:
        raise PictureError(f"picture {name} is empty; give an image file")
    if len(picture) > MAX_FILE_BYTES:
        raise PictureError(f"picture {name} is too large: more than {MAX_FILE_BYTES} bytes; save it smaller")
    return picture


def open_file(data: bytes, spec: PictureSpec, name: str) -> Image.Image:
    """Reads the header of an image file; `decoded` makes pixels of it.

    Args:
        data: the file.
        spec: for `max_pixels`.
        name: how messages call the picture.

    Raises:
        PictureError: it is of no format that is read, truncated, corrupt or too large.
    """
    try:
        kept = pixel_data(data, spec.max_pixels)
    except FormatError as error:
        raise PictureError(f"picture {name} {error}") from error
    # Pillow warns of large pictures on its own terms, ours follow. Filters of warnings belong to the whole process,
    # hence the lock; it is held for the header only.
    with _decoding(name), _header.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(BytesIO(kept.data), formats=[kept.format])
    _check_size(image.width, image.height, spec, name)
    return image


def decoded(image: Image.Image, name: str, shrink: int = 1) -> Image.Image:
    """The pixels of an opened picture, mode RGB.

    Args:
        image: what `open_file` returned, not decoded yet.
        name: how messages call the picture.
        shrink: of a JPEG, decode a half (2), a quarter (4) or an eighth (8) of its width and height.

    Raises:
        PictureError: the file is truncated or corrupt.
    """
    with _decoding(name):
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def or_substitute(picture: Picture, on_bad_image: OnBadImage, use: Callable[[Picture], Used]) -> Used:
    """What `use` makes of the whole picture of a tweet, or of what is taken for one that it refuses.

    Args:
        picture: as in `open_picture`; only a path has a picture beside it that could be taken instead.
        on_bad_image: `error`, or `substitute`: take inf.png from the same folder, as published. The published loaders
            do so where Pillow cannot open a file; here it is whatever `use` refuses.
        use: opens a picture.

    Raises:
        PictureError: `use` refuses the picture, and `inf.png` is not wanted or is refused, too.
    """
    if on_bad_image == "error" or not isinstance(picture, str | Path):
        return use(picture)
    try:
        return use(picture)
    except PictureError as cause:
        try:
            return use(Path(picture).with_name(SUBSTITUTE))
        except PictureError as error:
            raise PictureError(f"{cause}; nor can its substitute be used: {error}") from error


def to_pixels(
    image: Image.Image,
    spec: PictureSpec,
    box: Box | None = None,
    *,
    name: str = "<image>",
    size: tuple[int, int] | None = None,
) -> Pixels:
    """Crops an opened picture to a box, then resizes its shorter side and takes the middle, as published.

    Args:
        image: what `open_picture` or `decoded` returned.
        spec: sizes and limits.
        box: (x0, y0, x1, y1) in pixels, right and bottom exclusive, each rounded to the nearest whole pixel.
        name: how messages call the picture.
        size: width and height of the picture, in whose pixels the box counts, if it was decoded at a fraction of them.

    Returns:
        RGB pixels uint8 [crop, crop, 3].

    Raises:
        PictureError: the box is empty, lies outside the picture or is not four numbers, or the part to resize is so
            elongated that it would exceed `max_pixels`.
    """
    size = size or image.size
    edges = edges_inside(box, size, name)
    width, height = resized_size((edges[2] - edges[0], edges[3] - edges[1]), spec, name)
    shrink = round(size[0] / image.width)
    x0, y0, x1, y1 = (round(edge / shrink) for edge in edges)
    if (x0, y0, x1, y1) != (0, 0, *image.size):
        image = image.crop((x0, y0, x1, y1))
    left, top = round((width - spec.crop) / 2), round((height - spec.crop) / 2)
    if image.height > 2 * image.width:  # which axis Pillow begins with depends on its version
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image.crop((left, top, left + spec.crop, top + spec.crop)))  # [crop, crop, 3]
    # The same bits for less than a third of the time: only what is kept is resized. Pillow's own resize(box=...)
    # rounds the box to float32, and one pixel in four would come out different.
    whole = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint8).reshape(image.height, image.width, 4)
    pixels = np.empty((spec.crop, spec.crop, 3), np.uint8)
    _pixels.resize_part(whole, height, width, top, left, pixels)
    return pixels


def resized_size(size: tuple[int, int], spec: PictureSpec, name: str) -> tuple[int, int]:
    """Width and height once the shorter side is resized.

    Raises:
        PictureError: there would be more than `max_pixels`.
    """
    short, long = sorted(size)
    resized_long = int(spec.resize * long / short)  # torchvision rounds down
    if spec.resize * resized_long > spec.max_pixels:
        raise PictureError(
            f"picture {name}: {size[0]} x {size[1]} pixels are too elongated to resize the shorter side to "
            f"{spec.resize} (limit {spec.max_pixels} pixels); crop it"
        )
    return (spec.resize, resized_long) if size[0] <= size[1] else (resized_long, spec.resize)


def digest(pixels: Pixels) -> bytes:
    """16 bytes that are equal for equal pixels: their key in the prefix cache."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise PictureError(f"picture {name} has too many pixels ({one_line(error)}); resize it") from error
    except Exception as error:  # corrupt data makes Pillow raise nearly anything: SyntaxError, struct.error, KeyError
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PictureError(f"picture {name} is truncated or corrupt ({reason}); replace the file") from error


def _from_array(array: Pixels, name: str, spec: PictureSpec) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise PictureError(
            f"picture {name} must be RGB, uint8 [height, width, 3], not {array.dtype} {list(array.shape)}; convert it"
        )
    _check_size(array.shape[1], array.shape[0], spec, name)
    return Image.fromarray(np.ascontiguousarray(array))


def _check_size(width: int, height: int, spec: PictureSpec, name: str) -> None:
    if width < 1 or height < 1:
        raise PictureError(f"picture {name} has no pixels ({width} x {height}); give one that has")
    if width * height > spec.max_pixels:
        raise PictureError(
            f"picture {name} has too many pixels: {width} x {height}, the limit is {spec.max_pixels}; resize it"
        )
