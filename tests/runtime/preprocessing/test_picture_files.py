"""What is kept of a picture file: the same pixels, at a cost that its size and its pixels bound."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features

from hvpnet_runtime.errors import PictureError
from hvpnet_runtime.preprocessing import picture_files
from hvpnet_runtime.preprocessing.avif import decoded_pixels
from hvpnet_runtime.preprocessing.parts import Parts, TooManyPartsError
from hvpnet_runtime.preprocessing.picture_files import FormatError, pixel_data
from hvpnet_runtime.preprocessing.pictures import PictureSpec, open_picture

MOST = 50_000_000
MIB = 2**20


def drawn(mode: str = "RGB", width: int = 90, height: int = 60) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((width, height)))
    return image.convert(mode)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def as_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    """The published way."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def as_we(data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(open_picture(data, PictureSpec()))


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = 6, "a description"
    return tags


def animation(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    others = [drawn(mode).rotate(angle) for angle in (30, 60)]
    return encoded(drawn(mode), file_format, save_all=True, append_images=others, duration=40, **options)


def with_metadata() -> dict[str, bytes]:
    profile, one, other = bytes(range(256)) * 300, drawn(), drawn().rotate(90)
    files = {
        "JPEG": encoded(one, "JPEG", exif=exif(), icc_profile=profile, comment=b"c" * 900),
        "progressive": encoded(one, "JPEG", progressive=True, exif=exif(), xmp=b"x" * 9000),
        "CMYK": encoded(one.convert("CMYK"), "JPEG", icc_profile=profile),
        "grey JPEG": encoded(one.convert("L"), "JPEG", dpi=(300, 300)),
        "two pictures": encoded(one, "MPO", save_all=True, append_images=[other]),
        "motion": encoded(one, "JPEG") + b"\xff\xda\0\4ab" * 99,
        "PNG": encoded(one, "PNG", exif=exif(), icc_profile=profile, dpi=(72, 72)),
        "palette": encoded(one.convert("P"), "PNG", transparency=3),
        "APNG": animation("PNG"),
        "APNG with a picture of its own": animation("PNG", default_image=True),
        "GIF": encoded(one.convert("P"), "GIF", transparency=3, comment=b"c" * 900),
        "animated GIF": animation("GIF", "P", loop=0),
        "WEBP": encoded(one, "WEBP", exif=exif(), icc_profile=profile, xmp=b"x" * 99),
        "lossless": encoded(drawn("RGBA"), "WEBP", lossless=True, exif=exif()),
        "alpha": encoded(drawn("RGBA"), "WEBP", xmp=b"x"),
        "animated WEBP": animation("WEBP", icc_profile=profile),
        "BMP": encoded(one.convert("P"), "BMP"),
    }
    if features.check("avif"):
        files["AVIF"] = encoded(drawn("RGBA"), "AVIF", exif=exif(), icc_profile=profile)
        files["animated AVIF"] = animation("AVIF")
    return files


@pytest.mark.parametrize("name", with_metadata())
def test_pixels_are_those_of_the_whole_file(name: str) -> None:
    data = with_metadata()[name]
    assert np.array_equal(as_we(data), as_pillow(data))


@pytest.mark.parametrize("name", with_metadata())
def test_changed_files_never_give_other_pixels(name: str) -> None:
    """Where both read a changed file, they read the same; and no change costs more than one typed error."""
    data, draw, same = with_metadata()[name], random.Random(0), 0
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(min(len(changed), 900))] = draw.randrange(256)
        try:
            found = np.asarray(open_picture(bytes(changed), PictureSpec(max_pixels=10_000)))
        except PictureError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        try:
            expected = as_pillow(bytes(changed))
        except Exception:
            continue
        assert np.array_equal(found, expected)
        same += 1
    assert same or name in ("APNG", "PNG", "palette", "APNG with a picture of its own")  # of checksums


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def stuffed(file_format: str, *, behind: bytes = b"", before: bytes = b"", at: int = 0) -> tuple[bytes, bytes]:
    """A picture, and the same with something put where metadata are, or behind."""
    data = encoded(drawn("P" if file_format == "GIF" else "RGB"), file_format)
    return data, data[:at] + before + data[at:] + behind


def stuffed_fill() -> tuple[bytes, bytes]:
    """A JPEG, and the same with fill between each 0xff of its coded data and the 0 that says it is one."""
    data = encoded(drawn(), "JPEG", quality=100)
    start = scans(data)[0] + 14
    assert b"\xff\0" in data[start:]
    return data, data[:start] + data[start:].replace(b"\xff\0", b"\xff" * 2**16 + b"\0")


def scans(data: bytes) -> list[int]:
    """Where the scans of a JPEG of ours begin."""
    return [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]


GIF_HEADER = 13 + 3 * 256

STUFFED = {
    "Exif": stuffed("JPEG", at=2, before=segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 140),
    "Photoshop": stuffed("JPEG", at=2, before=segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4" + bytes(60_000)) * 140),
    "pictures beside": stuffed("JPEG", at=2, before=segment(0xE2, b"MPF\0" + bytes(60_000)) * 140),
    "comments": stuffed("JPEG", at=2, before=segment(0xFE, bytes(60_000)) * 140),
    "junk": stuffed("JPEG", at=3, before=b"\xff\0" * 4 * MIB),
    "fill bytes": stuffed("JPEG", at=2, before=b"\xff" * 8 * MIB),
    "fill bytes before the end": stuffed("JPEG", at=-2, before=b"\xff" * 8 * MIB),
    "fill bytes before coded bytes": stuffed_fill(),
    "profiles": stuffed("PNG", at=33, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**6))) * 4000),
    "text": stuffed("PNG", at=33, before=chunk(b"tEXt", b"a\0b") * 60_000),
    "text behind": stuffed("PNG", behind=chunk(b"tEXt", b"a\0b") * 500_000),
    "empty pixels": stuffed("PNG", at=33, before=chunk(b"IDAT", b"") * 60_000),
    "GIF comments": stuffed("GIF", at=GIF_HEADER, before=b"!\xfe" + (b"\xff" + bytes(255)) * 32_000 + b"\0"),
    "more WebP": stuffed("WEBP", at=12, before=b"abcd\0\0\0\0" * 60_000),
}


@pytest.mark.parametrize("name", STUFFED)
def test_pillow_is_not_given_what_pixels_do_not_need(name: str) -> None:
    plain, data = STUFFED[name]
    kept = pixel_data(data, MOST)
    assert len(kept.data) <= len(plain)
    assert np.array_equal(as_we(data), as_pillow(plain))


PIXELS = encoded(drawn(), "PNG")

COSTLY = {
    "segments": (stuffed("JPEG", at=2, before=segment(0xE1, b"") * 70_000)[1], "more than 65536 parts"),
    "markers": (stuffed("JPEG", at=2, before=b"\xff\xd0" * 70_000)[1], "more than 65536 parts"),
    "tables": (stuffed("JPEG", at=2, before=segment(0xDB, bytes(65 * 1000)) * 2)[1], "more than 65536 bytes of tables"),
    "chunks": (PIXELS[:33] + chunk(b"tEXt", b"a\0") * 70_000 + PIXELS[33:], "more than 65536 parts"),
    "pixel chunks": (PIXELS[:33] + chunk(b"IDAT", b"") * 70_000 + PIXELS[33:], "more than 65536 parts"),
    "blocks": (stuffed("GIF", at=GIF_HEADER, before=b"!\xfe" + b"\1a" * 70_000)[1], "more than 65536 parts"),
    "blocks of extensions": (
        stuffed("GIF", at=GIF_HEADER, before=(b"!\xfe" + b"\1a" * 40_000 + b"\0") * 2)[1],
        "more than 65536 parts",
    ),
    "extensions": (stuffed("GIF", at=GIF_HEADER, before=b"!\xfe\0" * 70_000)[1], "more than 65536 parts"),
    "GIF junk": (stuffed("GIF", at=GIF_HEADER, before=b"x" * 70_000)[1], "more than 65536 parts"),
    "WebP chunks": (stuffed("WEBP", at=12, before=b"abcd\0\0\0\0" * 70_000)[1], "more than 65536 parts"),
    "run lengths": (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 9, 9, 1, 8, 1) + bytes(2000), "run-length encoded"),
}


def test_table_values_of_255_are_no_fill_bytes() -> None:
    """A table between the scans, all of whose values are 255, makes a file with fill no other picture."""
    data = encoded(drawn(), "JPEG", progressive=True)
    last = scans(data)[-1]
    filled = data[:last] + segment(0xDB, b"\1" + b"\xff" * 64) + b"\xff" * 99 + data[last:]
    assert pixel_data(filled, MOST).data.count(segment(0xDB, b"\1" + b"\xff" * 64)) == 1
    assert np.array_equal(as_we(filled), as_pillow(filled))


def test_fill_bytes_before_a_stray_scan_are_cut() -> None:
    data = encoded(drawn(), "JPEG")
    stray = b"\xff\xda\0\2"
    kept = pixel_data(data[:-2] + b"\xff" * MIB + stray + data[-2:], MOST).data
    assert kept == pixel_data(data[:-2] + stray + data[-2:], MOST).data


@pytest.mark.parametrize("name", COSTLY)
def test_files_of_more_parts_than_pictures_have_are_refused(name: str) -> None:
    data, message = COSTLY[name]
    with pytest.raises(FormatError, match=rf"would take too long to read \({message}.*\); save it anew"):
        pixel_data(data, MOST)


@pytest.mark.parametrize(
    "fill", [b"", b"\xff\xff", b"\xff\xfe\0\4\xff\xd9"], ids=["", "fill bytes", "an end in a comment"]
)
def test_scans_of_a_jpeg_are_counted(fill: bytes) -> None:
    data = encoded(drawn(), "JPEG", progressive=True)
    own = scans(data)
    assert len(own) == 10
    last = fill + data[own[-1] : -2]
    most = picture_files.MAX_SCANS - 10
    longest = data[:-2] + last * most + data[-2:]
    assert np.array_equal(as_we(longest), as_pillow(longest))
    with pytest.raises(PictureError, match="more than 32 scans"):
        as_we(data[:-2] + last * (most + 1) + data[-2:])


def test_most_scans_of_any_encoder_are_read() -> None:
    data = encoded(drawn("CMYK"), "JPEG", progressive=True)
    assert len(scans(data)) == 18
    assert np.array_equal(as_we(data), as_pillow(data))


def test_a_large_webp_is_refused_before_memory_is_taken() -> None:
    header = b"RIFF" + struct.pack("<I", 4096) + b"WEBP"
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_000 - 1).to_bytes(3, "little") * 2
    lossless = b"VP8L" + struct.pack("<IBI", 10, 0x2F, (16_000 - 1) << 14 | (16_000 - 1)) + bytes(5)
    lossy = b"VP8 " + struct.pack("<I6xHH", 10, 16_000, 16_000)
    for body in (extended, lossless, lossy):
        with pytest.raises(FormatError, match="has too many pixels: 16000 x 16000, the limit is 50000000"):
            pixel_data(header + body, MOST)


avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


@avif
@pytest.mark.parametrize("size", [(90, 60), (301, 203), (1, 1), (4100, 33)])
@pytest.mark.parametrize(("mode", "pictures"), [("RGB", 1), ("L", 1), ("RGBA", 2)])
def test_pixels_of_avif_frames(size: tuple[int, int], mode: str, pictures: int) -> None:
    image = drawn(mode, *size)
    if mode == "RGBA":
        image.putpixel((0, 0), (0, 0, 0, 7))  # not opaque, or it would have no alpha
    assert decoded_pixels(encoded(image, "AVIF"), Parts(1000)) == pictures * size[0] * size[1]


@avif
def test_an_avif_that_is_larger_than_it_says_is_refused() -> None:
    """A decoder scales what it has decoded to the size announced."""
    data = encoded(Image.new("RGB", (400, 300)), "AVIF")
    size = b"ispe" + bytes(4) + struct.pack(">II", 400, 300)
    assert size in data
    small = data.replace(size, b"ispe" + bytes(4) + struct.pack(">II", 20, 30))
    assert as_we(small).shape == (30, 20, 3)
    with pytest.raises(FormatError, match="has too many pixels: 120000 in all its frames, the limit is 59999"):
        pixel_data(small, 59_999)


@avif
def test_parts_of_an_avif_are_counted_and_cut_ones_refused() -> None:
    data = encoded(drawn(), "AVIF")
    with pytest.raises(TooManyPartsError):
        decoded_pixels(data, Parts(5))
    with pytest.raises(FormatError, match="is truncated or corrupt"):
        pixel_data(data[:60], MOST)
    free = struct.pack(">I4s", 8, b"free") * 70_000
    with pytest.raises(FormatError, match="more than 65536 parts"):
        pixel_data(data[:32] + free + data[32:], MOST)


class Counted(bytes):
    """Bytes that count those that were copied out of them."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        Counted.copied += len(part) if isinstance(part, bytes) else 1
        return part


def avif_of(content: bytes, places: int = 1, kind: bytes = b"av01") -> bytes:
    """An AVIF whose only item, of a kind, lies in so many places, each of which is the same content."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    infe = box(b"infe", struct.pack(">IHH4sx", 2 << 24, 1, 0, kind))
    iinf = box(b"iinf", struct.pack(">IH", 0, 1) + infe)
    start = 20 + 12 + len(iinf) + 22 + 8 * places + 8
    place = struct.pack(">II", start, len(content))
    iloc = box(b"iloc", struct.pack(">IHHHHH", 0, 0x4400, 1, 1, 0, places) + place * places)
    data = box(b"ftyp", b"avif" + bytes(8)) + box(b"meta", bytes(4) + iinf + iloc) + box(b"mdat", content)
    assert data[start:] == content
    return data


@avif
@pytest.mark.parametrize(
    ("kind", "message"), [(b"av01", "larger than the file"), (b"Exif", "no AV1 picture")], ids=["picture", "Exif"]
)
def test_no_more_of_an_avif_is_copied_than_it_has(kind: bytes, message: str) -> None:
    """Each place of an item may be the whole file."""
    data = Counted(avif_of(bytes(MIB), 1000, kind))
    Counted.copied = 0
    with pytest.raises(FormatError, match=message):
        pixel_data(data, MOST)
    assert Counted.copied < 4 * len(data)


@avif
@pytest.mark.parametrize("bits", ["1" + "0" * 64 + "1" + "0" * 3000, "0" + "0" + "11111"], ids=["zeros", "points"])
def test_parts_of_sequence_headers_are_counted(bits: str) -> None:
    """A number in them may begin with any count of zeros; each may have 32 operating points."""
    bits = "000" + "0" + "0" + bits  # profile, no still picture, no reduced header, and what follows
    header = int(bits.ljust(4000, "0"), 2).to_bytes(500, "big")
    data = avif_of((b"\x0a\xf4\x03" + header) * 40)  # OBUs that say how long they are
    with pytest.raises(TooManyPartsError):
        decoded_pixels(data, Parts(500))
