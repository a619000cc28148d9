"""What of a picture file its pixels are made of, so that a file costs no more than its size and its pixels allow.

Pillow reads what else a file holds (Exif, profiles, comments, further frames), some of it in time that grows with the
square of its size, and the runtime has no use for it. So the parts of a file are told apart here, by their lengths
alone, and Pillow is given those that the pixels need. They are what they were: so are the pixels.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from PIL import features

from hvpnet_runtime.preprocessing.avif import decoded_pixels
from hvpnet_runtime.preprocessing.parts import Parts, TooManyPartsError

MAX_PARTS = 2**16
"""Segments, chunks, blocks or boxes of a file, however nested. A PNG of 50 megapixels has some 20,000 chunks."""

MAX_SCANS = 32
"""Passes over a JPEG, each of which costs as much as its pixels. Encoders write 10 for colours, 18 for CMYK."""

MAX_TABLES = 2**16
"""Bytes of a JPEG's tables before its first scan. All that the standard has room for take some 3,000."""

MAX_AVIF_PICTURES = 2
"""Times the pixels of a picture that may be decoded for it: colours and transparency are apart."""


class FormatError(ValueError):
    """A picture file cannot be used; the message goes on after its name, and says how and the cure."""


@dataclass(frozen=True)
class PixelData:
    """A file without what its pixels do not need.

    Attributes:
        format: Pillow's name for it.
        data: a complete file of this format.
    """

    format: str
    data: bytes


def pixel_data(data: bytes, max_pixels: int) -> PixelData:
    """The part of a picture file that its picture is made of; of an animation, its first.

    Args:
        data: the file.
        max_pixels: beyond which a file is refused here if Pillow would take memory before it says how large it is.

    Raises:
        FormatError: the file is of no format that is read, truncated, corrupt, or costs more than pictures do.
    """
    for name, (magic, reduce) in _READERS.items():
        if magic.match(data):
            try:
                return PixelData(name, reduce(data, max_pixels, Parts(MAX_PARTS)))
            except TooManyPartsError as error:
                raise _costly(f"more than {MAX_PARTS} parts") from error
    raise FormatError(f"is not an image file; formats read: {', '.join(_READERS)}")


def _corrupt(reason: str) -> FormatError:
    return FormatError(f"is truncated or corrupt ({reason}); replace the file")


def _costly(reason: str) -> FormatError:
    return FormatError(f"would take too long to read ({reason}); save it anew")


def _too_large(pixels: str, max_pixels: int) -> FormatError:
    return FormatError(f"has too many pixels: {pixels}, the limit is {max_pixels}; resize it")


# JPEG: markers, most with a segment that begins with its length (ITU-T T.81, annex B)

_MARKER = re.compile(rb"\xff[^\x00\xff]")  # what is before it is junk, which decoders pass over too
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, restarts, start of image: markers without a segment
_EOI, _SOS, _COM = 0xD9, 0xDA, 0xFE


def _jpeg(data: bytes, _: int, parts: Parts) -> bytes:
    """Without comments and application segments, but for those that say how colours are coded."""
    kept, tables, position = [data[:2]], 0, 2
    while True:
        parts.take()
        if not (found := _MARKER.search(data, position)):
            raise _corrupt("no picture in it")
        marker, position = data[found.end() - 1], found.end()
        if marker in _ALONE:
            continue
        start, position = position, _end_of_segment(data, position)
        segment = data[start:position]
        is_application = 0xE0 <= marker <= 0xEF or marker == _COM
        if is_application and (marker, segment[2:7]) not in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe")):
            continue
        kept += [bytes((0xFF, marker)), segment]
        tables += len(segment)
        if tables > MAX_TABLES:
            raise _costly(f"more than {MAX_TABLES} bytes of tables")
        if marker == _SOS:
            return b"".join([*kept, *_scans(data, position, parts)])


def _scans(data: bytes, position: int, parts: Parts) -> list[bytes]:
    """The scans of a JPEG whose first one's data begin at `position`; what follows is no part of the picture."""
    if data.find(b"\xff\xda", position) < 0 and data.find(b"\xff\xff", position) < 0:  # most are one scan, unfilled
        return [data[position:]]
    kept, scans = list[bytes](), 1
    while found := _END_OF_SCAN.search(data, position):
        parts.take()
        marker, end = data[found.end() - 1], found.end()
        kept += [_without_fill(data[position : end - 1]), bytes((marker,))]
        if marker == _EOI:
            return kept
        scans += marker == _SOS
        if scans > MAX_SCANS:
            raise _costly(f"more than {MAX_SCANS} scans")
        position = end if marker in _ALONE else _end_of_segment(data, end)
        kept.append(data[end:position])
    return [*kept, _without_fill(data[position:])]


def _without_fill(coded: bytes) -> bytes:
    """Coded data with one byte of each run of 0xff, which means the same; decoders read long runs again and again."""
    while b"\xff\xff" in coded:
        coded = coded.replace(b"\xff\xff", b"\xff")
    return coded


def _end_of_segment(data: bytes, position: int) -> int:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise _corrupt("a segment is cut off")
    return position + length


# PNG: chunks of length, kind, body and checksum


def _png(data: bytes, _: int, parts: Parts) -> bytes:
    """Header, palette, transparency, and the pixels as one chunk."""
    kept, pixels, position = [data[:8]], list[bytes](), 8
    while True:
        parts.take()
        if len(head := data[position : position + 8]) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        start, position = position, position + length + 12
        if kind == b"IDAT":
            pixels.append(data[start + 8 : position - 4])
        elif pixels or kind == b"IEND":
            break
        elif kind in (b"IHDR", b"PLTE", b"tRNS"):
            kept.append(data[start:position])  # with its checksum, which Pillow holds against it
    return b"".join([*kept, _png_chunk(b"IDAT", b"".join(pixels)), _png_chunk(b"IEND", b"")])


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", crc32(body, crc32(kind)))


# GIF: a header, extensions in blocks, and frames


def _gif(data: bytes, _: int, parts: Parts) -> bytes:
    """Header, palette, what says which colour is transparent, and everything from the first frame on."""
    position = 13 + _gif_palette(data[10:11])
    kept = [data[:position]]
    while True:
        parts.take()
        start, introducer = position, data[position : position + 1]
        if introducer == b",":
            return b"".join([*kept, data[position:]])
        if introducer in (b"", b";"):
            raise _corrupt("no picture in it")
        if introducer != b"!":  # junk, which Pillow passes over too
            position += 1
            continue
        kind, position = data[position + 1 : position + 2], position + 2
        size = 1
        while size:
            parts.take()
            size = int.from_bytes(data[position : position + 1], "little")
            position += 1 + size
        if kind == b"\xf9":
            kept.append(data[start:position])


def _gif_palette(flags: bytes) -> int:
    """Bytes of the palette that flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


# WebP: chunks of kind, length and body, the latter padded to an even length


def _webp(data: bytes, max_pixels: int, parts: Parts) -> bytes:
    """Header, alpha and pixels; of an animation, the first frame."""
    kept, position = list[bytes](), 12
    while True:
        parts.take()
        if len(head := data[position : position + 8]) < 8:
            raise _corrupt("no picture in it")
        kind, length = struct.unpack("<4sI", head)
        body = data[position + 8 : position + 8 + length]
        if len(body) < length:
            raise _corrupt("a chunk is cut off")
        position += 8 + length + length % 2
        width, height = _webp_size(kind, body)
        if width * height > max_pixels:
            raise _too_large(f"{width} x {height}", max_pixels)
        if kind == b"VP8X" and body:  # of its flags, those for alpha and animation
            body = bytes((body[0] & 0b10010,)) + body[1:]
        if kind in (b"VP8X", b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF"):
            kept.append(head + body + bytes(length % 2))
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            break
    inner = b"".join(kept)
    return struct.pack("<4sI4s", b"RIFF", 4 + len(inner), b"WEBP") + inner


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int]:
    """Width and height, where a chunk has the picture's (RFC 9649), else 0."""
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", body[1:5])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 0, 0


def _bmp(data: bytes, _: int, __: Parts) -> bytes:
    """As it is, but for run lengths, which Pillow decodes in Python, a run at a time."""
    header, compression = struct.unpack("<I12xI", data[14:34].ljust(20, b"\0"))
    if header >= 40 and compression in (1, 2):
        raise _costly("run-length encoded BMP")
    return data


def _avif(data: bytes, max_pixels: int, parts: Parts) -> bytes:
    """As it is, for its parts are found by their places; of an animation, the picture shown for it."""
    try:
        pixels = decoded_pixels(data, parts)
    except (ValueError, IndexError) as error:
        raise _corrupt(str(error)) from error
    if pixels > MAX_AVIF_PICTURES * max_pixels:
        raise _too_large(f"{pixels} in all its frames", max_pixels)
    return data[:8] + b"avif" + data[12:]


_READERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes, int, Parts], bytes]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    "BMP": (re.compile(rb"BM"), _bmp),
}
"""Pillow reads more formats, but some of them start other programs (EPS), hide a picture's real size (ICO, TIFF) or are
read in Python, a value at a time (PPM)."""

if features.check("avif"):
    _READERS["AVIF"] = re.compile(rb".{4}ftyp(avif|avis|mif1|msf1)", re.DOTALL), _avif
