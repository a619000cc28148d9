"""Pictures as a grounder reads them, and its boxes in pixels of the picture."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from hvpnet_runtime.bundle import GrounderKind
from hvpnet_runtime.errors import MissingExtraError

PADDING = (124, 116, 104)
"""Colour beside a letterboxed picture: the published (123.7, 116.3, 103.5), as OpenCV rounds it for uint8."""


_FAR = 2.0**24
"""Pixels beyond which an edge is outside every picture, however far."""


@dataclass(frozen=True)
class Fitted:
    """A picture as a grounder reads it.

    Attributes:
        pixels: uint8 [S, S, 3], RGB.
        scale: pixels of the input for one of the picture, (across, down).
        offset: where the picture begins in the input, in pixels, (across, down); may be half a pixel.
    """

    pixels: npt.NDArray[np.uint8]
    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_picture(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes [Q, 4] as (x0, y0, x1, y1) in shares of S -> in pixels of the picture, not clipped to it.

        Edges further than 2 ** 24 pixels from it are moved there, where nothing that is done to them overflows.
        """
        pixels = boxes.astype(np.float64) * len(self.pixels)
        edges = (pixels - self.offset * 2) / (self.scale * 2)
        found: npt.NDArray[np.float32] = np.clip(edges, -_FAR, _FAR).astype(np.float32)
        return found


def fit(image: npt.NDArray[np.uint8], kind: GrounderKind, size: int) -> Fitted:
    """A picture in the square that a grounder reads.

    Args:
        image: uint8 [height, width, 3], RGB.
        kind: of the grounder.
        size: side S of its input.

    Raises:
        MissingExtraError: OpenCV is not installed, which `one-stage` needs.
    """
    return _FITS[kind](image, size)


def letterbox(image: npt.NDArray[np.uint8], size: int) -> Fitted:
    """The whole picture, its longer side `size` pixels long, in the middle of a square of the mean colour.

    Source: published code of the one-stage grounder, `letterbox`; arguments and errors as of `fit`. A shorter side of
    less than half a pixel, at which the published code fails, becomes one pixel.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "grounding", "finding objects") from error
    height, width = image.shape[:2]
    ratio = size / max(height, width)
    columns, rows = max(1, round(width * ratio)), max(1, round(height * ratio))
    across, down = (size - columns) / 2, (size - rows) / 2
    resized = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:] = PADDING
    top, left = round(down - 0.1), round(across - 0.1)  # of an odd margin, the smaller part is before the picture
    pixels[top : top + rows, left : left + columns] = resized
    return Fitted(pixels, (ratio, ratio), (across, down))


def squeeze(image: npt.NDArray[np.uint8], size: int) -> Fitted:
    """The whole picture resized to the square, its aspect ratio not kept; arguments as of `fit`.

    Pixels equal those of transformers' `OwlViTImageProcessorPil` before it normalises them; but what is transparent
    keeps its colour, as everywhere here, while newer versions of transformers put it on white.
    """
    height, width = image.shape[:2]
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((size, size), Image.Resampling.BICUBIC)
    return Fitted(np.asarray(resized), (size / width, size / height), (0.0, 0.0))


_FITS: dict[GrounderKind, Callable[[npt.NDArray[np.uint8], int], Fitted]] = {
    "one-stage": letterbox,
    "owl-vit": squeeze,
}
