"""Arrays of a bundle: npz archives without pickles and without compression, as numpy's `savez` writes them."""

import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.bundle.grounder_spec import remake
from hvpnet_runtime.errors import BundleError


def read_arrays(
    content: bytes, file: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of these names, float32. What an array's header says is checked before memory is taken.

    Args:
        content: of the file.
        file: what messages call it.
        shapes: that the model needs, by name.

    Raises:
        BundleError: the file is no such archive, or an array is missing or unusable; the message names it.
    """
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    what = "it"
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            for what, shape in shapes.items():
                arrays[what] = _read_array(archive, what, shape)
    except _UnusableError as error:
        raise BundleError(f"{file}: {error}; {remake(file)}") from error
    except Exception as error:  # zipfile, its decompressors and numpy raise a dozen kinds at damaged bytes
        raise BundleError(f"{file}: {what} cannot be read ({error}); {remake(file)}") from error
    return arrays


class _UnusableError(Exception):
    """An array that is not what the model needs."""


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        raise _UnusableError(f"{name} is missing") from error
    if entry.compress_type != zipfile.ZIP_STORED:  # so that no array is larger than the file
        raise _UnusableError(f"{name} is compressed")
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, _, dtype = read_header(member)
    if dtype != np.float32 or found != shape:
        raise _UnusableError(f"{name} is {dtype} {list(found)}, the graphs read float32 {list(shape)}")
    with archive.open(entry) as member:
        array: npt.NDArray[np.float32] = np.lib.format.read_array(member, allow_pickle=False)
    return np.ascontiguousarray(array)
