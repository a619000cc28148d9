"""Folders that are there whole or not at all: written beside their place, flushed, and renamed."""

import ctypes
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

_EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2)."""

_HERE = -100
"""AT_FDCWD of Linux: relative paths begin at the working directory."""


@contextmanager
def staged(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling that takes the folder's place at the end, or is removed.

    An old folder and the new one change places in one step where the system and the disk can do that (`exchange`).
    Elsewhere the old one is moved aside first, and is put back after an error or an interrupt; a process that is killed
    between these two steps leaves it beside its place, as `.NAME.*.replaced`.

    Args:
        folder: its parents are made.
        replace: whether a folder that is there gives way; until then it stays as it is. The new one gets its mode.

    Raises:
        FileExistsError: it is there and does not give way.
        OSError: the disk refuses, within the block too.
    """
    if folder.exists() and not replace:
        raise FileExistsError(f"{folder} exists: remove it or choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    replaced = stage.with_name(f"{stage.name}.replaced")
    try:
        yield stage
        old = replace and folder.exists()
        stage.chmod(stat.S_IMODE(folder.stat().st_mode) if old else 0o755)  # mkdtemp makes it private
        for path in stage.rglob("*"):
            if path.is_file():
                flush(path)
        if not (old and exchange(stage, folder)):
            if old:
                folder.rename(replaced)
            stage.rename(folder)
    finally:
        if replaced.exists() and not folder.exists():  # an error, or an interrupt, between the two names
            replaced.rename(folder)
        shutil.rmtree(stage, ignore_errors=True)  # the old folder if they changed places; a renamed one is not there
        shutil.rmtree(replaced, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths on one disk change places in a single step, so that both are there at any time.

    Returns:
        Whether they did. Only Linux has such a step, and not for every disk.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    failed: int = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), ctypes.c_uint(_EXCHANGE))
    return not failed


def link_files(folder: Path, stage: Path, without: Collection[str]) -> None:
    """Files of a folder but some, in another one on the same disk; linked, so that they are not there twice.

    A file that is linked must not be written to afterwards: that would change the folder's own. Whatever is to be
    written belongs into `without`.

    Args:
        folder: is read.
        stage: gets them; it is there.
        without: files that are left out, as paths inside the folder. A symbolic link on the way to one of them is left
            out too, as it would lead out of the stage.

    Raises:
        OSError: the disk refuses.
    """
    above = {parent.as_posix() for name in without for parent in PurePosixPath(name).parents}

    def skip(directory: str, names: list[str]) -> set[str]:
        inside = Path(directory).relative_to(folder)
        paths = {name: (inside / name).as_posix() for name in names}
        return {
            name
            for name, path in paths.items()
            if path in without or (path in above and Path(directory, name).is_symlink())
        }

    shutil.copytree(folder, stage, symlinks=True, ignore=skip, copy_function=link_or_copy, dirs_exist_ok=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A file under a second name, where the disk can; a symbolic link stays one.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a disk without links, or Windows, which follows them
        shutil.copy2(source, target, follow_symlinks=False)


def flush(path: Path) -> None:
    """A file's bytes, or a folder's names, on the disk: a power cut must not leave names of empty files.

    Raises:
        OSError: the disk refuses.
    """
    if os.name == "nt" and path.is_dir():
        return  # Windows writes names by itself, and opens no folder
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
