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
                _flush(path)
        if folder.exists():
            folder.rename(replaced)
        stage.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)  # a renamed stage is no longer there
        shutil.rmtree(replaced, ignore_errors=True)


def _flush(path: Path) -> None:
    """On the disk before the name is: a power cut must not leave a folder of empty files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
