"""Arrays of a bundle: npz archives without pickles."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.archives import check_archive
from hvpnet_runtime.errors import BundleError

_UNREADABLE = (OSError, EOFError, MemoryError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, *names: str) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of these names.

    Raises:
        BundleError: the file is no such archive, or an array is missing or unusable; the message names it.
    """
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    what = "it"
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("not an npz archive, or truncated")
            check_archive(file)
        with np.load(path, allow_pickle=False) as archive:
            for what in names:
                arrays[what] = archive[what]
    except KeyError as error:
        raise BundleError(f"{path}: {what} is missing; export the bundle again") from error
    except _UNREADABLE as error:
        raise BundleError(f"{path}: {what} cannot be read ({error}); export the bundle again") from error
    return arrays
