"""Files of a folder that may be damaged: only regular ones are read, and below the folder no link is followed."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from shutil import copyfileobj

from hvpnet_runtime.bundle.manifest import FileDigest
from hvpnet_runtime.errors import BundleError, brief


def open_regular(folder: Path, name: str) -> BufferedReader:
    """Open a file of a folder to be read. The folder itself may be a link; a device or a pipe is never waited for.

    Args:
        folder: where it stands.
        name: its path inside the folder, with slashes.

    Raises:
        BundleError: it is missing, is or lies behind a link, is no regular file, lies outside, or cannot be read.
    """
    file, parts = folder / name, PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise BundleError(f"{brief(name)} is no file inside {folder}: export the checkpoint again")
    with _as_bundle_errors(file), ExitStack() as opened:
        if os.open not in os.supports_dir_fd:
            return _open_by_path(folder, name)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, at)
        for part in parts[:-1]:
            _refuse_link(file, os.stat(part, dir_fd=at, follow_symlinks=False))
            at = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            opened.callback(os.close, at)
        # Opening a device may do something, hence the first look; another file may take the name after it.
        _require_regular(file, os.stat(parts[-1], dir_fd=at, follow_symlinks=False))
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        try:
            _require_regular(file, os.fstat(descriptor))
        except BundleError:
            os.close(descriptor)
            raise
        return open(descriptor, "rb")  # noqa: PTH123  a descriptor has no path, and the caller closes it


def _open_by_path(folder: Path, name: str) -> BufferedReader:
    """As `open_regular` on Windows, which has no way to stay in a folder that was opened."""
    file = folder
    if "\\" in name or ":" in name:
        raise BundleError(f"{brief(name)} is no file inside {folder}: export the checkpoint again")
    for part in PurePosixPath(name).parts:
        file /= part
        _refuse_link(folder / name, file.lstat())
    _require_regular(file, file.lstat())
    return file.open("rb")


def read_regular(folder: Path, name: str, most: int | None = None) -> bytes:
    """The content of a file of a folder.

    Args:
        folder: where it stands.
        name: its path inside the folder.
        most: bytes that it may have.

    Raises:
        BundleError: as `open_regular`, or the file is larger.
    """
    with open_regular(folder, name) as file, _as_bundle_errors(folder / name):
        if most is not None and (size := os.fstat(file.fileno()).st_size) > most:
            raise BundleError(f"{folder / name} has {size} bytes, more than the {most} that such a file may have")
        return file.read(-1 if most is None else most)


def read_checked(folder: Path, name: str, facts: FileDigest) -> bytes:
    """The content of a file, which is what was hashed, whatever happens to the file meanwhile.

    Raises:
        BundleError: as `open_regular`, or it has another size or digest.
    """
    with open_regular(folder, name) as file, _as_bundle_errors(folder / name):
        _check_size(folder / name, file, facts)
        content = file.read(facts.bytes)
    _check_digest(folder / name, hashlib.sha256(content).hexdigest(), facts)
    return content


def check_file(folder: Path, name: str, facts: FileDigest) -> None:
    """Hold a file against its digest, without holding it in memory.

    Raises:
        BundleError: as `read_checked`.
    """
    with open_regular(folder, name) as file, _as_bundle_errors(folder / name):
        _check_size(folder / name, file, facts)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_digest(folder / name, digest, facts)


def copy_regular(folder: Path, name: str, target: Path) -> None:
    """Copy a file of a folder; the target's parents are made.

    Raises:
        BundleError: as `open_regular`.
        OSError: the copy cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_regular(folder, name) as file, target.open("wb") as copy:
        copyfileobj(file, copy)


def regular_files(folder: Path, below: str) -> list[str]:
    """All files below a part of a folder, by their paths inside the folder, in order; none if the part is not there.

    Raises:
        BundleError: one of them, or a folder on the way, is a link or no regular file.
    """
    names = []
    for path in sorted([folder / below, *(folder / below).rglob("*")]):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            _require_regular(path, found)
            names.append(path.relative_to(folder).as_posix())
    return names


def sha256(file: Path) -> str:
    """Digest of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, FileDigest]:
    """What every file of a folder is, by its path inside it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileDigest(sha256(path), path.stat().st_size) for path in files}


@contextmanager
def _as_bundle_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{file} is missing: copy the whole bundle again") from error
    except (OSError, UnicodeError) as error:
        raise BundleError(f"{file} cannot be read ({error}): copy the bundle again") from error


def _refuse_link(file: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise BundleError(f"{file} is a link, or lies behind one: copy the files themselves into the folder (cp -rL)")


def _require_regular(file: Path, found: os.stat_result) -> None:
    _refuse_link(file, found)
    if not stat.S_ISREG(found.st_mode):
        raise BundleError(f"{file} is missing: a folder, device or pipe has its name; copy the whole bundle again")


def _check_size(file: Path, opened: BufferedReader, facts: FileDigest) -> None:
    size = os.fstat(opened.fileno()).st_size
    if size != facts.bytes:
        raise BundleError(f"{file} has {size} bytes, {facts.bytes} are right: copy the bundle again")


def _check_digest(file: Path, digest: str, facts: FileDigest) -> None:
    if digest != facts.sha256:
        raise BundleError(f"{file} was changed after it was made: its sha256 is not the one on record; copy it again")
