"""What a forked process must not use: threads are not copied to it, but what waits for them is."""

import ctypes
import os
from collections.abc import Callable
from weakref import WeakSet

from hvpnet_runtime.errors import BackendError


def in_forks(call: Callable[[], None]) -> None:
    """Have something called in every process that is forked from this one; Windows forks none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


class Origin:
    """The process that made something with threads, its own or a library's."""

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Fail at once where waiting for the threads would never end.

        Raises:
            BackendError: this is a process that was forked from that one.
        """
        if not self.is_here:
            raise BackendError(
                f"the pipeline was loaded in process {self._process}, and this one was forked from it without its "
                "threads: load the pipeline in each process, after the fork"
            )


_never_freed: WeakSet[object] = WeakSet()


def never_free_in_forks(thing: object) -> None:
    """Keep something alive in forked processes to their end: to free it would be to wait for its threads."""
    _never_freed.add(thing)


def _keep() -> None:
    for thing in _never_freed:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # a list would be emptied as the process ends


in_forks(_keep)
