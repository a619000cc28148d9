"""Folders that are there whole or not at all: written beside their place, flushed, and renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
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
