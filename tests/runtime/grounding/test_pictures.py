"""Letterboxed pictures, pixel by pixel, and boxes on the way back."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet_runtime.errors import MissingExtraError
from hvpnet_runtime.grounding.pictures import fit

SIDES = st.integers(1, 400)


def drawn(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_square_of_the_right_size_stays() -> None:
    image = drawn(32, 32)
    fitted = fit(image, "one-stage", 32)
    np.testing.assert_array_equal(fitted.pixels, image)
    assert (fitted.scale, fitted.offset) == ((1, 1), (0, 0))


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(64, 32, slice(0, 32), slice(8, 24)), (32, 64, slice(8, 24), slice(0, 32))],
    ids=["tall", "wide"],
)
def test_half_the_size_is_the_mean_of_four_pixels(height: int, width: int, rows: slice, columns: slice) -> None:
    image = drawn(height, width)
    fitted = fit(image, "one-stage", 32)
    blocks = image.reshape(height // 2, 2, width // 2, 2, 3).astype(int).sum((1, 3))
    assert np.abs(fitted.pixels[rows, columns] * 4.0 - blocks).max() <= 2  # rounded
    padding = fitted.pixels.copy()
    padding[rows, columns] = (124, 116, 104)
    np.testing.assert_array_equal(padding, np.broadcast_to((124, 116, 104), (32, 32, 3)))


def test_an_odd_margin_is_smaller_before_the_picture() -> None:
    fitted = fit(np.zeros((5, 32, 3), np.uint8), "one-stage", 32)
    assert fitted.offset == (0, 13.5)
    np.testing.assert_array_equal(np.flatnonzero(~fitted.pixels.any((1, 2))), np.arange(13, 18))


@given(SIDES, SIDES, st.integers(1, 64))
def test_every_shape_fits(height: int, width: int, size: int) -> None:
    fitted = fit(drawn(height, width), "one-stage", size)
    assert fitted.pixels.shape == (size, size, 3)
    assert fitted.pixels.dtype == np.uint8


@given(SIDES, SIDES, st.lists(st.floats(-1, 2), min_size=4, max_size=4))
def test_boxes_come_back(height: int, width: int, edges: list[float]) -> None:
    """Edges as shares of the picture, to shares of the input by the published formula, and back to pixels."""
    picture = np.array(edges) * (width, height, width, height)
    fitted = fit(drawn(height, width), "one-stage", 64)
    ratio = 64 / max(height, width)
    across, down = (64 - max(1, round(width * ratio))) / 2, (64 - max(1, round(height * ratio))) / 2
    shares = (picture * ratio + [across, down, across, down]) / 64
    found = fitted.to_picture(shares[None].astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], picture, atol=1e-3 * max(height, width))


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"hvpnet\[grounding\]"):
        fit(drawn(3, 4), "one-stage", 32)
