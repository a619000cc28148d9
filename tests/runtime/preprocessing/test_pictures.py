"""Pictures: equal to the published transforms, and one clear error for whatever cannot be read."""

import ast
import io
import os
import signal
import socket
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import SHARED

import hvpnet.modeling.torchvision_compat  # noqa: F401  lets torchvision be imported below
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_runtime import _pixels
from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.preprocessing import pictures
from hvpnet_runtime.preprocessing.pictures import (
    PictureSpec,
    digest,
    load_pixels,
    open_picture,
    picture_name,
    to_pixels,
)

SPEC = PictureSpec()


def normalised(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """[224, 224, 3] -> [3, 224, 224], as the vision graph does it first."""
    images: npt.NDArray[np.float32] = normalise(torch.from_numpy(pixels[None]))[0].contiguous().numpy()
    return images


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    return Image.fromarray(noise(8, 8)).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def published(image: Image.Image) -> npt.NDArray[np.float32]:
    """The published transforms, by torchvision."""
    from torchvision import transforms

    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize]
    tensor: torch.Tensor = transforms.Compose(steps)(image.convert("RGB"))
    return tensor.numpy()


@pytest.mark.heavy
@settings(deadline=None, max_examples=100)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**32 - 1))
def test_every_size_equals_torchvision_in_every_bit(height: int, width: int, seed: int) -> None:
    if 256 * 256 * max(height, width) / min(height, width) > SPEC.max_pixels:
        return
    image = Image.fromarray(noise(height, width, seed))
    assert np.array_equal(normalised(load_pixels(image, SPEC)), published(image))


@pytest.mark.parametrize(
    ("width", "height"),
    [
        *[(224, 224), (256, 256), (255, 257), (303, 884), (884, 303), (1600, 1200), (1, 1), (1, 700), (3000, 4)],
        *[(300, 600), (300, 601), (600, 300), (5000, 3000), (2, 3)],
    ],
)
def test_sizes_where_shortcuts_differ_equal_torchvision(width: int, height: int) -> None:
    image = Image.fromarray(noise(height, width))
    assert np.array_equal(normalised(load_pixels(image, SPEC)), published(image))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 40), st.data())
def test_other_sizes_to_resize_and_crop_equal_pillow(height: int, width: int, resize: int, data: st.DataObject) -> None:
    spec = PictureSpec(resize=resize, crop=data.draw(st.integers(1, resize)))
    image = Image.fromarray(noise(height, width))
    short, long = sorted(image.size)
    size = [resize, int(resize * long / short)]
    whole = image.resize(size if width <= height else size[::-1], Image.Resampling.BILINEAR)
    left, top = (round((side - spec.crop) / 2) for side in whole.size)
    expected = np.asarray(whole)[top : top + spec.crop, left : left + spec.crop]
    assert np.array_equal(load_pixels(image, spec), expected)


def test_white_stays_white() -> None:
    assert (load_pixels(np.full((2000, 3001, 3), 255, np.uint8), SPEC) == 255).all()


def test_normalised_values_are_those_of_torchvision_in_every_bit() -> None:
    side = np.arange(256, dtype=np.uint8)
    image = Image.fromarray(np.repeat((side + side[:, None])[..., None], 3, axis=2))  # every value, also in the middle
    assert np.array_equal(normalised(load_pixels(image, SPEC)), published(image))


def test_sizes_are_checked_where_pointers_are_taken() -> None:
    picture, kept = np.zeros((5, 6, 4), np.uint8), np.zeros((3, 3, 3), np.uint8)
    for arguments, message in [
        ((picture[..., :3].copy(), 5, 6, 0, 0, kept), "picture must be"),
        ((picture[:0], 5, 6, 0, 0, kept), "picture must be"),
        ((picture, 5, 6, 0, 0, picture), "kept must be"),
        ((picture, 5, 6, 0, 0, kept[:0]), "kept must be"),
        ((picture, 5, 6, 3, 0, kept), "reaches beyond"),
        ((picture, 5, 6, 0, 4, kept), "reaches beyond"),
        ((picture, 5, 6, 2**64 - 1, 0, kept), "reaches beyond"),
    ]:
        with pytest.raises(ValueError, match=message):
            _pixels.resize_part(*arguments)


def test_digest_tells_pixels_apart() -> None:
    pixels = noise(224, 224)
    other = pixels.copy()
    other[223, 223, 2] ^= 1
    assert digest(pixels) == digest(pixels.copy())
    assert digest(pixels) == digest(np.asfortranarray(pixels))
    assert digest(pixels) != digest(other)
    assert len(digest(pixels)) == 16


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    array = noise(300, 400)
    image = Image.fromarray(array)
    path = tmp_path / "a.png"
    image.save(path)
    expected = load_pixels(array, SPEC)
    for picture in (path, str(path), path.read_bytes(), image, Image.open(path), array[::-1][::-1]):
        assert np.array_equal(load_pixels(picture, SPEC), expected)
    assert expected.shape == (224, 224, 3)
    assert expected.dtype == np.uint8


def modes() -> dict[str, Image.Image]:
    rgb = smooth(60, 80)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray(noise(60, 80)[..., 0]))
    deep = Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80))
    return {mode: rgb.convert(mode) for mode in ("1", "L", "P", "CMYK", "LA", "HSV")} | {"RGBA": alpha, "I;16": deep}


@pytest.mark.parametrize("mode", modes())
def test_modes_convert_as_published(mode: str) -> None:
    image = modes()[mode]
    assert image.mode == mode
    assert np.array_equal(load_pixels(image, SPEC), load_pixels(np.asarray(image.convert("RGB")), SPEC))


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("RGBA", "WEBP"),
        ("P", "GIF"),
        ("L", "BMP"),
        ("P", "BMP"),
        ("RGBA", "BMP"),
        ("RGBA", "AVIF"),
    ],
)
def test_files_of_every_format_decode_as_published(mode: str, file_format: str) -> None:
    data = encoded(modes()[mode], file_format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(open_picture(data, SPEC)), expected)


def test_exif_rotation_is_ignored() -> None:
    image = smooth(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "JPEG", exif=exif)
    assert open_picture(data, SPEC).size == (90, 60)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (30, 30), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_picture(data, SPEC).getpixel((3, 3)) == (255, 0, 0)


def test_opened_picture_is_independent_of_the_given_one() -> None:
    image = smooth(30, 30)
    array = np.array(image)
    for opened in (open_picture(image, SPEC), open_picture(array, SPEC)):
        before = opened.getpixel((0, 0))
        image.putpixel((0, 0), (1, 2, 3))
        array[0, 0] = 1, 2, 3
        assert opened.getpixel((0, 0)) == before != (1, 2, 3)


def test_boxes_crop_before_resizing() -> None:
    array = noise(300, 400)
    image = open_picture(array, SPEC)
    expected = load_pixels(array[20:120, 10:210], SPEC)
    assert np.array_equal(to_pixels(image, SPEC, (10, 20, 210, 120)), expected)
    assert np.array_equal(load_pixels(array, SPEC, (10.4, 19.6, 209.7, 120.3)), expected)
    whole = load_pixels(array, SPEC)
    assert np.array_equal(load_pixels(array, SPEC, (-0.4, 0, 400.2, 300)), whole)  # detectors overshoot by a fraction
    assert np.array_equal(load_pixels(array, SPEC, np.array([0, 0, 400, 300])), whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 20),
        (10, 10, 20, 10),
        (20, 10, 10, 20),
        (5, 5, 5.4, 9),
        (0, 0, 401, 300),
        (-1, 0, 5, 5),
        (500, 500, 600, 600),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
        (0, 0, 5),
        (0, 0, 5, 5, 5),
        "0123x",
        (0, 0, None, 5),
        7,
        (1e300, 0, 2e300, 5),
    ],
)
def test_bad_boxes(box: Any) -> None:
    with pytest.raises(PictureError, match=r"picture <array>: box .*") as caught:
        load_pixels(noise(300, 400), SPEC, box)
    check_line(caught.value)


def check_line(error: Exception) -> None:
    assert "\n" not in str(error)


def check_error(picture: Any, message: str, spec: PictureSpec = SPEC) -> None:
    """A PictureError of one line that names the picture, and no warning of Pillow beside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PictureError, match=message) as caught:
            load_pixels(picture, spec)
    assert picture_name(picture) in str(caught.value)
    check_line(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    check_error(tmp_path / "none.jpg", "cannot be opened: No such file")
    check_error(str(tmp_path), "cannot be opened: Is a directory")
    check_error(Path("/dev/null"), "cannot be opened: Is a device")
    check_error(tmp_path / "file" / "x.jpg", "cannot be opened: No such file")
    check_error("a\0b.jpg", "cannot be opened: embedded null")
    check_error("", "cannot be opened")


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes to, or a terminal, would block for ever."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    check_error(tmp_path / "pipe.jpg", "cannot be opened: Is a named pipe")
    check_error(tmp_path / "link.jpg", "cannot be opened: Is a named pipe")
    check_error("/dev/ptmx", "cannot be opened: Is a device")
    check_error("/dev/zero", "cannot be opened: Is a device")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.jpg"))
        check_error(tmp_path / "socket.jpg", "cannot be opened: Is a socket")


def test_files_that_became_pipes_are_not_waited_for_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    regular = Path(__file__).stat()
    monkeypatch.setattr("hvpnet_runtime.files.Path.stat", lambda _: regular)
    check_error(tmp_path / "pipe.jpg", "cannot be opened: Is a named pipe")


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    smooth(20, 30).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert np.array_equal(load_pixels(tmp_path / "link.png", SPEC), load_pixels(tmp_path / "a.png", SPEC))


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(2**40)
    check_error(path, "is too large: more than 67108864 bytes")
    data = encoded(smooth(20, 30), "PNG")
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", len(data) - 1)
    check_error(data, f"is too large: more than {len(data) - 1} bytes")
    monkeypatch.setattr(pictures, "MAX_FILE_BYTES", len(data))
    assert load_pixels(data, SPEC).shape == (224, 224, 3)


def test_a_fork_while_a_header_is_read_does_not_stop_the_child() -> None:
    """The thread that holds the lock is not there in the child, which would wait for it for ever."""
    data = encoded(smooth(20, 30), "PNG")
    with pictures._header.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(load_pixels(data, SPEC).shape != (224, 224, 3))
    assert os.waitpid(child, 0)[1] == 0


def test_not_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_text("not\na picture")
    check_error(path, "not an image file")
    check_error(b"", "is empty")
    check_error(b"\0", "not an image file")
    for other in ("TIFF", "PPM", "ICO", "TGA", "JPEG2000"):
        check_error(encoded(smooth(20, 20), other), "not an image file; formats read: JPEG, PNG, GIF, WEBP, BMP")
    check_error(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image file")
    for wrong in (None, 3, bytearray(b"x"), io.BytesIO(b"x")):
        with pytest.raises(PictureError, match=f"not {type(wrong).__name__}"):
            load_pixels(wrong, SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 5, 3)),
        np.zeros((5, 5, 3), np.int64),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((3, 5, 5), np.uint8),
        np.zeros((1, 5, 5, 3), np.uint8),
        np.zeros((), np.uint8),
        np.array(["a.jpg"]),
    ],
)
def test_wrong_arrays(array: npt.NDArray[Any]) -> None:
    check_error(array, r"must be RGB, uint8 \[height, width, 3\]")


def test_no_pixels() -> None:
    check_error(np.zeros((0, 5, 3), np.uint8), "has no pixels")
    check_error(np.zeros((5, 0, 3), np.uint8), "has no pixels")
    check_error(Image.new("RGB", (0, 5)), "has no pixels")


def test_too_many_pixels_are_refused_from_the_header() -> None:
    """Neither of these files could be decoded: whoever tried would say truncated."""
    check_error(png_header(20_000, 20_000), "too many pixels")
    check_error(png_header(10_000, 10_000), "too many pixels: 10000 x 10000")  # Pillow only warns
    check_error(png_header(7072, 7071), "too many pixels: 7072 x 7071")
    check_error(png_header(7000, 7000), "truncated or corrupt")
    jpeg = encoded(Image.new("L", (16, 16)), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    huge = jpeg[: frame + 5] + struct.pack(">HH", 20_000, 20_000) + jpeg[frame + 9 :]
    check_error(huge, "too many pixels")
    check_error(noise(30, 30), "too many pixels: 30 x 30, the limit is 899", PictureSpec(max_pixels=899))
    check_error(Image.new("RGB", (30, 30)), "too many pixels", PictureSpec(max_pixels=899))


def test_a_real_picture_of_20000_by_20000_is_refused() -> None:
    data = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    check_error(data, "too many pixels")


def test_elongated_pictures() -> None:
    for width, height in ((20_000, 10), (10, 20_000)):
        check_error(np.zeros((height, width, 3), np.uint8), f"{width} x {height} pixels are too elongated")
        box = (0, 0, 10, 10)
        assert not load_pixels(np.zeros((height, width, 3), np.uint8), SPEC, box).any()


TRUNCATED = [
    ("JPEG", {"quality": 90}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"quality": 80}),
    ("BMP", {}),
    ("AVIF", {}),
]


@pytest.mark.parametrize(("file_format", "options"), TRUNCATED)
def test_truncated_files_never_give_half_a_picture(file_format: str, options: dict[str, Any]) -> None:
    """Wherever a file is cut, it is refused, or complete: some formats end in bytes that no pixel needs."""
    data = encoded(smooth(60, 90), file_format, **options)
    whole = np.asarray(open_picture(data, SPEC))
    refused = 0
    for end in sorted({*range(1, len(data), max(1, len(data) // 150)), *range(len(data) - 40, len(data))}):
        try:
            pixels = np.asarray(open_picture(data[:end], SPEC))
        except PictureError as error:
            refused += 1
            check_line(error)
        else:
            assert np.array_equal(pixels, whole), end
    assert refused > 100


def test_truncated_jpeg_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    data = encoded(smooth(450, 600), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    check_error(path, r"half\.jpg is truncated or corrupt \(OSError: .*truncated")


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(TRUNCATED), st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=20))
def test_corrupt_files_give_pixels_or_a_typed_error(
    kind: tuple[str, dict[str, Any]], edits: list[tuple[int, int]]
) -> None:
    data = bytearray(encoded(smooth(20, 30), kind[0], **kind[1]))
    for position, value in edits:
        data[position % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of corrupt metadata
        try:
            pixels = load_pixels(bytes(data), PictureSpec(max_pixels=300_000))
        except PictureError as error:
            check_line(error)
        else:
            assert pixels.shape == (224, 224, 3)


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]),
)
def test_arbitrary_bytes_are_a_typed_error(data: bytes, magic: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PictureError):
            load_pixels(magic + data, PictureSpec(max_pixels=10_000))


def test_a_closed_image_is_a_typed_error(tmp_path: Path) -> None:
    smooth(20, 20).save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    image.close()
    check_error(image, "<image> is truncated or corrupt")


def test_threads_agree() -> None:
    data = [encoded(Image.fromarray(noise(50, 60, seed)), "PNG") for seed in range(8)]
    expected = [load_pixels(item, SPEC) for item in data]
    results: list[npt.NDArray[np.uint8] | None] = [None] * 8

    def work(index: int) -> None:
        for _ in range(5):
            results[index] = load_pixels(data[index], SPEC)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, pixels) for result, pixels in zip(results, expected, strict=True))  # type: ignore[arg-type]
    assert list(warnings.filters) == filters


def golden_pictures(task: str) -> list[tuple[Path, list[Path]]]:
    """The image and the crops of every golden case, as the published loaders choose them."""
    folder = SHARED / "golden/tweets"
    crops: dict[Any, list[str]] = torch.load(folder / f"{task}_dict.pth", weights_only=True)
    lines = (folder / f"{task}.txt").read_text(encoding="utf-8").splitlines()
    if task == "ner":
        images = [line.removeprefix("IMGID:") + ".jpg" for line in lines if line.startswith("IMGID:")]
        keys: list[Any] = list(images)
    else:
        images = [ast.literal_eval(line)["img_id"] for line in lines]
        keys = list(range(len(images)))
    paths = [folder / "images" / image for image in images]
    paths = [path if path.exists() else folder / "images/inf.png" for path in paths]
    return [
        (p, [folder / "crops" / name for name in crops.get(key, [])[:3]]) for p, key in zip(paths, keys, strict=True)
    ]


@pytest.mark.golden
@pytest.mark.parametrize("task", ["ner", "mre"])
def test_golden_pixels(task: str) -> None:
    with np.load(SHARED / f"golden/tweets/{task}.npz") as file:
        golden = dict(file)
    row, column = golden["pixel_index"].T
    pictures = golden_pictures(task)
    assert len(pictures) == len(golden["image_pixels"])
    for index, (image, crops) in enumerate(pictures):
        whole = normalised(load_pixels(image, SPEC))  # [3, 224, 224]
        np.testing.assert_allclose(whole[:, row, column], golden["image_pixels"][index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(whole.mean((1, 2)), golden["image_mean"][index], rtol=0, atol=1e-5)
        objects = [normalised(load_pixels(crop, SPEC)) for crop in crops]
        objects += [np.zeros((3, 224, 224), np.float32)] * (3 - len(crops))
        stacked = np.stack(objects)  # [3, 3, 224, 224]
        np.testing.assert_allclose(stacked[..., row, column], golden["crop_pixels"][index], rtol=0, atol=1e-6)
        np.testing.assert_allclose(stacked.mean((2, 3)), golden["crop_mean"][index], rtol=0, atol=1e-5)
