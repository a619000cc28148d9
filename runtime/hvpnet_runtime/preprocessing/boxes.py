"""Boxes of object detectors, as parts of a picture in whole pixels."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from hvpnet_runtime.errors import PictureError, brief
from hvpnet_runtime.types import Box

Edges: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in whole pixels, the last two exclusive."""


def whole_pixels(box: Box, name: str) -> Edges:
    """A box with each edge rounded to the nearest whole pixel.

    Args:
        box: as it was given.
        name: how messages call the picture.

    Raises:
        PictureError: it is not four numbers.
    """
    try:
        x0, y0, x1, y1 = (round(_number(edge)) for edge in _in_order(box))
    except (TypeError, ValueError, OverflowError) as error:  # not four, not numbers, NaN, infinite
        raise PictureError(f"picture {name}: box {brief(box)} is not four finite numbers (x0, y0, x1, y1)") from error
    return x0, y0, x1, y1


def edges_inside(box: Box | None, size: tuple[int, int], name: str) -> Edges:
    """The edges of a box inside a picture, or of the whole picture.

    Args:
        box: as it was given, or None.
        size: width and height of the picture.
        name: how messages call it.

    Raises:
        PictureError: the box is not four numbers, is empty, or lies outside the picture.
    """
    width, height = size
    if box is None:
        return 0, 0, width, height
    x0, y0, x1, y1 = whole_pixels(box, name)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise PictureError(
            f"picture {name}: box {brief(box)} is empty or outside the picture of {width} x {height} pixels; clip it"
        )
    return x0, y0, x1, y1


def _in_order(box: Any) -> Any:  # noqa: ANN401  whatever a user gave
    """Not what yields numbers when it is iterated, but holds something else, or has no order."""
    if isinstance(box, bytes | bytearray | Mapping | set | frozenset):
        raise TypeError
    return box


def _number(edge: Any) -> float:  # noqa: ANN401
    if isinstance(edge, str | bytes | bytearray):  # which float would parse
        raise TypeError
    return float(edge)
