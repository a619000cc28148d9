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
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise BundleError(f"{path}: it is not an npz archive, or it is truncated; export the bundle again")
            check_archive(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: _read(archive, name, path) for name in names}
    except _UNREADABLE as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error


def _read(archive: "np.lib.npyio.NpzFile", name: str, path: Path) -> npt.NDArray[np.generic]:
    if name not in archive:
        raise BundleError(f"{path}: {name} is missing; export the bundle again")
    try:
        array: npt.NDArray[np.generic] = archive[name]
    except _UNREADABLE as error:
        raise BundleError(f"{path}: {name} cannot be read ({error}); export the bundle again") from error
    return array
