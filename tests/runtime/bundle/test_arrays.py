"""Arrays of a bundle: what is read is what was written, and nothing else is read at all."""

import struct
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from hvpnet_runtime import BundleError
from hvpnet_runtime.bundle.arrays import read_arrays

FILE = Path("decoder.npz")
SHAPES = {"start_transitions": (3,), "end_transitions": (3,), "transitions": (3, 3)}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def written(arrays: dict[str, np.ndarray]) -> bytes:
    content = BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def test_reads_each_array_by_name(arrays: dict[str, np.ndarray]) -> None:
    found = read_arrays(written(dict(reversed(arrays.items()))), FILE, SHAPES)
    assert list(found) == list(SHAPES)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_columns_first_is_the_same_array(arrays: dict[str, np.ndarray]) -> None:
    content = written(arrays | {"transitions": np.asfortranarray(arrays["transitions"])})
    assert b"'fortran_order': True" in content
    np.testing.assert_array_equal(read_arrays(content, FILE, SHAPES)["transitions"], arrays["transitions"])


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_missing_array_is_named(arrays: dict[str, np.ndarray], name: str) -> None:
    del arrays[name]
    with pytest.raises(BundleError, match=rf"decoder\.npz: {name} is missing; export the checkpoint again"):
        read_arrays(written(arrays), FILE, SHAPES)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("end_transitions", np.zeros(2, np.float32)),
        ("transitions", np.zeros(9, np.float32)),
        ("transitions", np.zeros((0, 3), np.float32)),
        ("start_transitions", np.zeros(3)),
        ("start_transitions", np.zeros(3, ">f4")),
        ("start_transitions", np.zeros(3, [("a", np.float32)])),
        ("transitions", np.array([None])),
    ],
)
def test_an_unusable_array_is_named(arrays: dict[str, np.ndarray], name: str, array: np.ndarray) -> None:
    with pytest.raises(BundleError, match=rf"decoder\.npz: .*\b{name}\b") as caught:
        read_arrays(written(arrays | {name: array}), FILE, SHAPES)
    assert "\n" not in str(caught.value)


def test_damaged_archives(arrays: dict[str, np.ndarray]) -> None:
    content, array = written(arrays), BytesIO()
    np.save(array, arrays["transitions"])
    flipped = bytearray(content)
    flipped[content.index(b"NUMPY") + 130] ^= 1
    for broken, reason in [
        (b"", "it cannot be read"),
        (b"text", "it cannot be read"),
        (content[: len(content) // 2], "it cannot be read"),
        (array.getvalue(), "it cannot be read"),
        (bytes(flipped), "start_transitions cannot be read"),
    ]:
        with pytest.raises(BundleError, match=rf"decoder\.npz: {reason}.*; export the checkpoint again"):
            read_arrays(broken, FILE, SHAPES)


@pytest.mark.parametrize("shape", ["(9000000000000,)", "(3, 9000000000)", "(-1,)", "'3'", "(3.0,)", "(" * 500])
def test_a_header_that_promises_other_sizes(arrays: dict[str, np.ndarray], shape: str) -> None:
    """It is compared before memory is taken: some of these would need terabytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(1000).encode() + b"\n"
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("start_transitions.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(BundleError, match=r"decoder\.npz: start_transitions"):
        read_arrays(content.getvalue(), FILE, SHAPES)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_arrays_are_refused(method: int) -> None:
    """A thousand times their bytes could come out of them."""
    array, content = BytesIO(), BytesIO()
    np.save(array, np.zeros((3000, 3000), np.float32))
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.writestr("transitions.npy", array.getvalue())
    assert len(content.getvalue()) < 50_000
    with pytest.raises(BundleError, match=r"decoder\.npz: transitions is compressed"):
        read_arrays(content.getvalue(), FILE, {"transitions": (3000, 3000)})
