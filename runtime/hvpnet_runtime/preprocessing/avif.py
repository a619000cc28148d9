"""How much there is to decode in an AVIF file, whatever size it says it has.

A decoder scales frames to the size that the file announces, and decodes those which are never shown, so neither bounds
what decoding takes. The frames themselves do. Sources: ISO/IEC 14496-12 and 23008-12 (boxes and items), the AV1
bitstream specification (OBUs).
"""

from collections.abc import Container, Iterator

from hvpnet_runtime.preprocessing.parts import Parts

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # types of OBUs


def decoded_pixels(data: bytes, parts: Parts) -> int:
    """Pixels of all frames of all coded pictures: colour, alpha, tiles and thumbnails.

    Args:
        data: the file.
        parts: boxes, items, their places, OBUs and operating points that may be read.

    Raises:
        ValueError: the file is cut off, or has no AV1 picture.
        IndexError: likewise.
        TooManyPartsError: there is more to read.
    """
    pixels, total = 0, 0
    for kind, body in _boxes(data, parts):
        if kind != b"meta":
            continue
        inner = dict(_boxes(body[4:], parts))
        coded = _coded_items(inner[b"iinf"], parts) if b"iinf" in inner else set[int]()
        for content in _contents(coded, inner.get(b"iloc", b""), data, inner.get(b"idat", b""), parts):
            total += len(content)
            if total > len(data):
                raise ValueError("its pictures overlap")
            pixels += _pixels(content, parts)
    if not pixels:
        raise ValueError("no AV1 picture in it")
    return pixels


class _Reader:
    """Big-endian numbers, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self.position = data, 0

    def number(self, size: int) -> int:
        start, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise ValueError("cut off")
        return int.from_bytes(self._data[start : self.position], "big")


def _boxes(data: bytes, parts: Parts) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box."""
    position = 0
    while position + 8 <= len(data):
        parts.take()
        size, kind, head = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        end = position + size if size else len(data)
        if end < position + head:
            raise ValueError("a box is shorter than its header")
        yield kind, data[position + head : end]
        position = end


def _coded_items(iinf: bytes, parts: Parts) -> set[int]:
    """Numbers of the items that are AV1 pictures."""
    coded = set()
    for kind, body in _boxes(iinf[6 if iinf[0] == 0 else 8 :], parts):
        size = 2 if body[0] < 3 else 4  # of the item's number, by the version of the box
        if kind == b"infe" and body[6 + size : 10 + size] == b"av01":
            coded.add(int.from_bytes(body[4 : 4 + size], "big"))
    return coded


def _contents(wanted: Container[int], iloc: bytes, file: bytes, idat: bytes, parts: Parts) -> Iterator[bytes]:
    """Bytes of the items wanted, each of which may lie in several places of the file."""
    reader = _Reader(iloc)
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 0xF for shift in (12, 8, 4, 0))
    number_size = 4 if version == 2 else 2
    for _ in range(reader.number(number_size)):
        parts.take()
        item = reader.number(number_size)
        within = idat if version and reader.number(2) & 0xF == 1 else file
        reader.number(2)  # in which file: this one
        base, places, total = reader.number(base_size), list[bytes](), 0
        for _ in range(reader.number(2)):
            parts.take()
            reader.number(index_size if version else 0)
            start, length = base + reader.number(offset_size), reader.number(length_size)
            if item not in wanted:
                continue
            places.append(within[start : start + length if length else None])
            total += len(places[-1])
            if total > len(file):
                raise ValueError("a picture is larger than the file")
        if item in wanted:
            yield b"".join(places)


def _pixels(content: bytes, parts: Parts) -> int:
    """Pixels of the frames of one coded picture."""
    position, largest, frames = 0, 0, 0
    while position < len(content):
        parts.take()
        header, position = content[position], position + 1
        position += header >> 2 & 1  # an extension
        size = len(content) - position
        if header & 2:
            size, position = _leb128(content, position)
        kind = header >> 3 & 0xF
        if kind == _SEQUENCE_HEADER:
            largest = max(largest, _frame_pixels(content[position : position + min(size, 512)], parts))
        frames += kind in (_FRAME_HEADER, _FRAME)
        position += size
    if not largest:
        raise ValueError("a picture without a size")
    return largest * max(1, frames)


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            break
    return value, position


def _frame_pixels(sequence_header: bytes, parts: Parts) -> int:
    """Width times height of the largest frames that follow (AV1 specification, 5.5.1)."""
    bits = _Bits(sequence_header)
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        _skip_operating_points(bits, parts)
    width_bits, height_bits = 1 + bits.take(4), 1 + bits.take(4)
    return (1 + bits.take(width_bits)) * (1 + bits.take(height_bits))


def _skip_operating_points(bits: "_Bits", parts: Parts) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):  # equal intervals
            zeros = 0
            while not bits.take(1):
                parts.take()
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder model
            delay_bits = 1 + bits.take(5)
            bits.take(42)
    display_delays = bits.take(1)
    for _ in range(1 + bits.take(5)):
        parts.take()
        bits.take(12)
        if bits.take(5) > 7:  # level
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if display_delays and bits.take(1):
            bits.take(4)


class _Bits:
    """Bits, from the highest of the first byte on."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header is cut off")
        return self._value >> self._left & (1 << count) - 1
