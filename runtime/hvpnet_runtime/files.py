"""Files that others name: opened only if reading them ends."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "Is a directory",
    stat.S_IFIFO: "Is a named pipe",
    stat.S_IFSOCK: "Is a socket",
    stat.S_IFCHR: "Is a device",
    stat.S_IFBLK: "Is a device",
}

_UNCHANGED_WITHOUT_WAITING = sum(getattr(os, flag, 0) for flag in ("O_RDONLY", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
"""How a file is opened. Windows has not the middle two, and only Windows has the last."""


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Whatever else has a path may wait for ever (a pipe, a terminal), never end (/dev/zero), or do something when it is
    opened.

    Raises:
        OSError: there is no such file, it cannot be read, or it is none; `strerror` says which.
        ValueError: the path holds a null character.
    """
    _require_regular(Path(path).stat(), path)
    # It may have become another file since, hence the second look, at a file that is opened without waiting.
    descriptor = os.open(path, _UNCHANGED_WITHOUT_WAITING)
    try:
        _require_regular(os.fstat(descriptor), path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def _require_regular(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, _KINDS.get(stat.S_IFMT(status.st_mode), "Is no file"), str(path))
