"""Which of the boxes that a grounder found become object crops."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

WholeBox: TypeAlias = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in whole pixels of the picture, right and bottom exclusive."""


class Chosen(NamedTuple):
    """A box that becomes a crop, which query it is of, and its score."""

    box: WholeBox
    query: int
    score: float


def select(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    size: tuple[int, int],
    threshold: float,
    most: int,
    usable: Callable[[WholeBox], bool] = lambda _: True,
) -> list[Chosen]:
    """Choose among the best boxes of several queries.

    Dropped are boxes whose score is below the threshold, that are not finite, empty or outside the picture, or that
    cover more than nine tenths of it: these would repeat the whole picture. Of two that overlap by more than half of
    what they cover together (IoU above 0.5), the better is kept.

    Args:
        boxes: float32 [Q, 4], (x0, y0, x1, y1) in pixels of the picture, as a detector gives them.
        scores: float32 [Q], of each query's box.
        size: width and height of the picture.
        threshold: least score.
        most: how many are chosen.
        usable: whether a crop can be made of a box.

    Returns:
        The chosen boxes by score, the best first, and by query where scores are equal. Edges are rounded outward to
        whole pixels and clipped to the picture.
    """
    chosen: list[Chosen] = []
    for query in np.argsort(-scores, kind="stable"):  # NaN comes last, and is not kept
        score = float(scores[query])
        if len(chosen) == most or not score >= threshold:
            break
        box = _whole(boxes[query], size)
        if box is None or 10 * _area(box) > 9 * size[0] * size[1] or not usable(box):
            continue
        if not any(_overlap(box, better.box) for better in chosen):
            chosen.append(Chosen(box, int(query), score))
    return chosen


def _whole(box: npt.NDArray[np.float32], size: tuple[int, int]) -> WholeBox | None:
    """The pixels that a box touches inside the picture, or None if it has no area there."""
    x0, y0, x1, y1 = map(float, box)
    if not (all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1):
        return None
    width, height = size
    left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
    right, bottom = min(width, math.ceil(x1)), min(height, math.ceil(y1))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _area(box: WholeBox) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(one: WholeBox, other: WholeBox) -> bool:
    """Whether the intersection is more than half of the union, in whole numbers."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = width * height if width > 0 and height > 0 else 0
    return 2 * shared > _area(one) + _area(other) - shared
