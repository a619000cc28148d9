"""Boxes are chosen as by looking at every pixel, one rule at a time."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvpnet_runtime.grounding.selection import Chosen, select

SIZE = (20, 10)


def chosen(*found: tuple[tuple[float, float, float, float], float], threshold: float = 0.1, most: int = 3) -> list:
    boxes, scores = zip(*found, strict=True)
    return select(np.array(boxes, np.float32), np.array(scores, np.float32), SIZE, threshold, most)


def pixels(box: tuple[float, ...]) -> frozenset[tuple[int, int]]:
    """The pixels of the picture that a box touches with some area."""
    x0, y0, x1, y1 = box
    if not (np.isfinite(box).all() and x0 < x1 and y0 < y1):
        return frozenset()
    return frozenset(
        (x, y) for x, y in product(range(SIZE[0]), range(SIZE[1])) if x < x1 and x + 1 > x0 and y < y1 and y + 1 > y0
    )


def by_pixels(boxes: list[tuple[float, ...]], scores: list[float], threshold: float, most: int) -> list[Chosen]:
    kept: list[tuple[int, frozenset]] = []
    order = sorted((q for q in range(len(boxes)) if scores[q] >= threshold), key=lambda q: (-scores[q], q))
    for query in order:
        own = pixels(boxes[query])
        if not own or len(own) / (SIZE[0] * SIZE[1]) > 0.9:
            continue
        if all(len(own & other) / len(own | other) <= 0.5 for _, other in kept):
            kept.append((query, own))
    return [
        Chosen(
            (min(x for x, _ in own), min(y for _, y in own), max(x for x, _ in own) + 1, max(y for _, y in own) + 1),
            query,
            scores[query],
        )
        for query, own in kept[:most]
    ]


edge = st.one_of(
    st.integers(-4, 24).map(float),
    st.integers(-40, 240).map(lambda tenths: tenths / 8),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, -0.0]),
)
box = st.one_of(st.tuples(edge, edge, edge, edge), st.tuples(*[st.integers(-1, 20).map(float)] * 4))
score = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan")]), st.floats(0, 1, width=32))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(box, score), max_size=8), st.sampled_from([0.0, 0.25, 0.5]), st.integers(1, 4))
def test_as_by_looking_at_every_pixel(found: list, threshold: float, most: int) -> None:
    boxes, scores = [each for each, _ in found], [each for _, each in found]
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)
    assert select(*arrays, SIZE, threshold, most) == by_pixels(boxes, scores, threshold, most)


def test_edges_are_rounded_outward_and_clipped() -> None:
    assert chosen(((1.2, 2.9, 3.1, 4.0), 0.5)) == [Chosen((1, 2, 4, 4), 0, 0.5)]
    assert chosen(((-3, -0.5, 4.5, 30), 0.5)) == [Chosen((0, 0, 5, 10), 0, 0.5)]


@pytest.mark.parametrize("nothing", [(3, 3, 3, 5), (3.2, 3, 3.2, 5), (5, 3, 3, 5), (-9, 0, 0, 9), (20, 0, 25, 9)])
def test_boxes_without_area_in_the_picture_are_dropped(nothing: tuple[float, ...]) -> None:
    assert chosen((nothing, 1)) == []


def test_the_threshold_itself_is_enough() -> None:
    assert [each.query for each in chosen(((0, 0, 2, 2), 0.25), ((4, 4, 6, 6), 0.2499), threshold=0.25)] == [0]


def test_nine_tenths_of_the_picture_are_still_an_object() -> None:
    assert [each.query for each in chosen(((0, 0, 20, 9), 0.5))] == [0]
    assert chosen(((0, 0, 20, 9.01), 0.5)) == []


def test_of_two_that_overlap_the_better_is_kept_and_half_is_not_too_much() -> None:
    third = (2, 0, 6, 2)  # shares 2 x 2 of 6 x 2 with the first
    assert [each.query for each in chosen(((0, 0, 4, 2), 0.5), (third, 0.6))] == [1, 0]
    half = (1, 0, 4, 2)  # 6 of 8
    assert [each.query for each in chosen(((0, 0, 4, 2), 0.5), (half, 0.6))] == [1]
    assert [each.query for each in chosen(((0, 0, 4, 2), 0.5), ((0, 0, 2, 2), 0.6))] == [1, 0]  # 4 of 8


def test_one_that_was_dropped_drops_no_other() -> None:
    whole, part, small = ((0, 0, 20, 10), 0.9), ((0, 0, 20, 8), 0.8), ((0, 0, 20, 5), 0.7)
    assert [each.query for each in chosen(whole, part, small)] == [1]
    assert [each.query for each in chosen(whole, small)] == [1]


def test_the_best_come_first_and_of_equals_the_first_query() -> None:
    places = [((x, 0, x + 2, 2), score) for x, score in ((0, 0.5), (4, 0.7), (8, 0.5), (12, 0.9))]
    assert [each.query for each in chosen(*places)] == [3, 1, 0]


def test_a_box_of_which_no_crop_can_be_made_neither_counts_nor_hides_another() -> None:
    boxes, scores = np.array([[0, 0, 4, 4], [0, 0, 4, 3]], np.float32), np.array([0.9, 0.8], np.float32)
    found = select(boxes, scores, SIZE, 0, 3, usable=lambda each: each[3] < 4)
    assert [each.query for each in found] == [1]


def test_nothing_to_choose_from() -> None:
    assert select(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), SIZE, 0, 3) == []
