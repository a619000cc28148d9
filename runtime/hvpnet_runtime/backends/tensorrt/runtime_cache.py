"""Kernels that TensorRT for RTX compiles when an engine first runs: shared by all contexts, and kept on disk."""

import logging
import os
import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.bundle.files import read_regular
from hvpnet_runtime.errors import BackendError, BundleError
from hvpnet_runtime.processes import never_free_in_forks

_log = logging.getLogger(__name__)

_MOST_BYTES = 2**30


class RuntimeCache:
    """The compiled kernels of a folder of engines, in `FOLDER.runtime-cache` beside it. Thread-safe.

    A process that finds the file compiles nothing that is in it. The library refuses a file of another version of it,
    GPU or driver; then, and where the disk cannot be written, all goes on without. TensorRT itself compiles when it
    builds, and has no such cache.

    Attributes:
        cache: the `IRuntimeCache` for execution contexts; None before `open`, and where the library has none.

    Args:
        api: the library.
        bundle: with the engines.
        folder: of the engines.
    """

    def __init__(self, api: Library, bundle: Bundle, folder: Path) -> None:
        self.cache: Any = None
        self._api, self._bundle = api, bundle
        self._file = folder.with_name(f"{folder.name}.runtime-cache")
        self._kept = b""  # what is on the disk
        self._lock = Lock()

    def open(self, engine: Any) -> None:  # noqa: ANN401  the libraries have no types
        """Make the cache, once, with what is on the disk; any engine of the library will do.

        Raises:
            BackendError: the library refuses.
        """
        with self._lock:
            if self.cache is not None:
                return
            self.cache = self._api.create_cache(engine)
            if self.cache is None:
                return
            never_free_in_forks(self.cache)
            if not os.path.lexists(self._file):
                return
            try:
                content = read_regular(self._bundle.path, f"engines/{self._file.name}", _MOST_BYTES)
                self._api.call("use the kernels that it compiled earlier", self.cache.deserialize, content)
            except (BundleError, BackendError) as error:
                _log.info("kernels are compiled again: %s", str(error))  # a kept record would keep the engine
            else:
                self._kept = content

    def save(self) -> None:
        """Write the kernels to the disk if there are more than it has."""
        with self._lock:
            if self.cache is None:
                return
            try:
                content = bytes(self._api.call("give out the kernels that it compiled", self.cache.serialize))
                if len(content) > len(self._kept):
                    _write(self._file, content)
                    self._kept = content
            except (OSError, BackendError) as error:
                _log.info("kernels will be compiled again by the next process: %s", str(error))

    def close(self) -> None:
        """Save, and forget the cache; contexts that share it keep it alive."""
        self.save()
        with self._lock:
            self.cache = None


def _write(file: Path, content: bytes) -> None:
    """Write a file whole or not at all, for readers at any time, through no link."""
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    stage = Path(name)
    try:
        with open(descriptor, "wb") as opened:  # noqa: PTH123  a descriptor has no path
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        stage.chmod(0o644)  # mkstemp makes it private
        stage.replace(file)
    finally:
        stage.unlink(missing_ok=True)
