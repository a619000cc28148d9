"""What protects the capture of a CUDA graph from other threads and from Python's garbage collector.

Captures record the calls of one thread only, yet the device must not be synchronised meanwhile in any thread: that
breaks them, in every mode (NVIDIA/TensorRT issue 2888). TensorRT does so when it makes or frees an execution context.
"""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock, RLock

from hvpnet_runtime.processes import in_forks

_locks: dict[int, AbstractContextManager[bool]] = {}


def exclusive(ordinal: int) -> AbstractContextManager[bool]:
    """The lock of a device, one in the process: whoever captures, allocates or works device-wide holds it.

    Args:
        ordinal: of the device. A thread may take its lock again.
    """
    return _locks.setdefault(ordinal, RLock())


_counting = Lock()
_holding, _was_enabled = 0, False


def _start_anew() -> None:
    """In a forked process no capture goes on, and a thread that is not there would hold the locks for ever."""
    global _counting, _holding
    _locks.clear()
    if _holding and _was_enabled:
        gc.enable()
    _counting, _holding = Lock(), 0


in_forks(_start_anew)


@contextmanager
def no_collection() -> Iterator[None]:
    """Hold off garbage collection in the whole process; it could free a context inside a capture.

    Several threads may do so at once, and one thread again inside: the last that ends restores what the first found.
    """
    global _holding, _was_enabled  # the collector is one for the process
    with _counting:
        if _holding == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _holding += 1
    try:
        yield
    finally:
        with _counting:
            _holding -= 1
            if _holding == 0 and _was_enabled:
                gc.enable()
