"""JPEGs decoded at a fraction of their size: which fraction, and how far the pixels are from the published ones."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.preprocessing import encoded_picture
from hvpnet_runtime.preprocessing.encoded_picture import EncodedPicture
from hvpnet_runtime.preprocessing.pictures import Jpeg, PictureSpec, load_pixels
from hvpnet_runtime.types import Box

pytestmark = pytest.mark.heavy

SPEC = PictureSpec()


def scene(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Large shapes with sharp edges, and texture."""
    rng = np.random.default_rng(seed)
    shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 0)
    texture = rng.normal(0, 8, (height, width, 1))
    return Image.fromarray((np.asarray(shapes) + texture).clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def read(data: bytes, jpeg: Jpeg, spec: PictureSpec = SPEC) -> EncodedPicture:
    return EncodedPicture.read(data, spec, jpeg)


@pytest.fixture
def shrinks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At one in how many pixels pictures were decoded."""
    seen: list[int] = []
    decoded = encoded_picture.decoded

    def noted(image: Image.Image, name: str, shrink: int = 1) -> Image.Image:
        width = image.width
        result = decoded(image, name, shrink)
        assert result.width == -(-width // shrink)
        seen.append(shrink)
        return result

    monkeypatch.setattr(encoded_picture, "decoded", noted)
    return seen


@pytest.mark.parametrize(
    ("size", "box", "shrink"),
    [
        ((1600, 1023), None, 1), ((1600, 1024), None, 2), ((1024, 4000), None, 2), ((2048, 2047), None, 2),
        ((2048, 2048), None, 4), ((2300, 2051), None, 4), ((4096, 4096), None, 8), ((5001, 4999), None, 8),
        ((2048, 2048), (0, 0, 2048, 1023), 1), ((2048, 2048), (24, 1, 2048, 1025), 2),
        ((4096, 4096), (0.4, 0.4, 2048.4, 2047.6), 4),
    ],
)  # fmt: skip
def test_the_shorter_side_keeps_twice_its_pixels(
    size: tuple[int, int], box: Box | None, shrink: int, shrinks: list[int]
) -> None:
    picture = read(encoded(scene(*size)), "scaled")
    scaled = picture.pixels(box)
    assert shrinks == [shrink]
    full = load_pixels(picture.data, SPEC, box)
    if shrink == 1:
        assert np.array_equal(scaled, full)
        return
    assert not np.array_equal(scaled, full)
    assert difference(scaled, full) < 1  # of 255


def difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg(mode: str, progressive: bool) -> None:
    data = encoded(scene(2200, 2100, mode), progressive=progressive, quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, which is ignored as ever
    turned = encoded(scene(2200, 2100, mode), progressive=progressive, quality=90, exif=exif)
    full = load_pixels(data, SPEC)
    assert 0 < difference(read(data, "scaled").pixels(), full) < 1
    assert np.array_equal(read(turned, "scaled").pixels(), read(data, "scaled").pixels())
    assert np.array_equal(read(data, "full").pixels(), full)


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_other_formats_are_as_ever(file_format: str, options: dict[str, Any]) -> None:
    data = encoded(scene(2200, 2100), file_format, **options)
    assert np.array_equal(read(data, "scaled").pixels(), load_pixels(data, SPEC))


def test_a_part_does_not_depend_on_what_else_is_cut(shrinks: list[int]) -> None:
    picture = read(encoded(scene(4100, 2100)), "scaled")
    boxes: list[Box | None] = [None, (0, 0, 300, 300), (100, 50, 2100, 1100), (50, 50, 400, 900)]
    together = [cut() for cut in picture.cuts(boxes)]
    assert shrinks == [4, 1, 2]  # once each
    for box, pixels in zip(boxes, together, strict=True):
        assert np.array_equal(picture.pixels(box), pixels)
    assert np.array_equal(together[1], load_pixels(picture.data, SPEC, boxes[1]))


def test_boxes_and_limits_count_in_pixels_of_the_file() -> None:
    data = encoded(scene(2200, 2100))
    picture = read(data, "scaled")
    assert 0 < difference(picture.pixels((150, 10, 2200, 2100)), load_pixels(data, SPEC, (150, 10, 2200, 2100))) < 1
    with pytest.raises(PictureError, match=r"box \(0, 0, 2201, 2100\) is empty or outside .* 2200 x 2100"):
        picture.pixels((0, 0, 2201, 2100))
    with pytest.raises(PictureError, match="too many pixels: 2200 x 2100"):
        read(data, "scaled", PictureSpec(max_pixels=2200 * 2100 - 1)).pixels()
    with pytest.raises(PictureError, match="truncated or corrupt"):
        read(data[: len(data) // 2], "scaled").pixels()


def test_the_geometry_is_that_of_the_full_picture() -> None:
    """A fine ramp: wherever the middle lay half a pixel beside, all pixels would be off."""
    ramp = np.linspace(0, 255, 3001)[None, :, None] * np.ones((2051, 1, 3))
    data = encoded(Image.fromarray(ramp.astype(np.uint8)), quality=95)
    scaled, full = read(data, "scaled").pixels(), load_pixels(data, SPEC)
    assert abs(float(scaled.mean()) - float(full.mean())) < 0.1
    assert np.abs(scaled.astype(int) - full.astype(int)).max() <= 3
