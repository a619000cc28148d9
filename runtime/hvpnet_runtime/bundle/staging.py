"""Folders that are there whole or not at all: written beside their place, flushed, and renamed."""

import os
import shutil
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary sibling that takes the folder's place at the end, or is removed.

    Args:
        folder: its parents are made.
        replace: whether a folder that is there gives way; until then it stays as it is.

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
        stage.chmod(0o755)  # mkdtemp makes it private
        for path in stage.rglob("*"):
            if path.is_file():
                flush(path)
        if replace and folder.exists():
            folder.rename(replaced)
        stage.rename(folder)
    finally:
        if replaced.exists() and not folder.exists():  # an error, or an interrupt, between the two names
            replaced.rename(folder)
        shutil.rmtree(stage, ignore_errors=True)  # a renamed stage is no longer there
        shutil.rmtree(replaced, ignore_errors=True)


def link_files(folder: Path, stage: Path, without: Container[str]) -> None:
    """Files of a folder but some, in another one on the same disk; linked, so that they are not there twice.

    Args:
        folder: is read.
        stage: gets them; it is there.
        without: files that are left out, as paths inside the folder.

    Raises:
        OSError: the disk refuses.
    """

    def skip(directory: str, names: list[str]) -> set[str]:
        inside = Path(directory).relative_to(folder)
        return {name for name in names if (inside / name).as_posix() in without}

    shutil.copytree(folder, stage, symlinks=True, ignore=skip, copy_function=link_or_copy, dirs_exist_ok=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A file under a second name, where the disk can; a symbolic link stays one.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a disk without links
        shutil.copy2(source, target, follow_symlinks=False)


def flush(path: Path) -> None:
    """A file's bytes, or a folder's names, on the disk: a power cut must not leave names of empty files.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
