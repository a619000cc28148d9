"""Prefixes in device memory: slots of one size, taken and given back without a call that would stall the device."""

import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.cuda import Address, Cuda, Event, Stream
from hvpnet_runtime.errors import BackendError, DeviceMemoryError

_SLOTS_PER_BLOCK = 64


class Written:
    """An event that happens when all that one call wrote is there; used again when nobody refers to this any more.

    Attributes:
        event: see above.
    """

    def __init__(self, event: Event) -> None:
        self.event = event


Slot: TypeAlias = tuple[Address, Written | None]
"""Where it is, and what wrote it last."""


class DevicePrefix:
    """One picture's prefix on the device; its slot is given back when the last reference goes.

    Attributes:
        address: where it stands.
        nbytes: its size.
        written: says when it is there.
    """

    def __init__(self, address: Address, nbytes: int, written: Written) -> None:
        self.address, self.nbytes, self.written = address, nbytes, written


class PrefixPool:
    """Slots for prefixes, allocated in blocks. Thread-safe.

    A slot may be taken again while the device still writes its last content (the cache dropped it at once), so whoever
    takes it waits on its stream for that. Readers hold a reference until they are done.

    Args:
        cuda: the device.
        nbytes: size of one prefix.
    """

    def __init__(self, cuda: Cuda, nbytes: int) -> None:
        self.nbytes = nbytes
        self._cuda = cuda
        self._free: list[Slot] = []
        self._events: list[Event] = []  # that nobody refers to
        self._held = ExitStack()  # frees blocks and events
        self._lock = Lock()
        self._closed = False

    def store(self, source: Address, count: int, stream: Stream) -> list[DevicePrefix]:
        """Copy `count` prefixes that lie one after the other at `source` into slots of their own.

        Raises:
            BackendError: the pool is closed, or the device refuses; no slot is lost.
            DeviceMemoryError: memory for so many slots is not there.
        """
        slots, event = self._take(count)
        written = Written(event)
        weakref.finalize(written, self._events.append, event).atexit = False
        prefixes = []
        for slot in slots:
            prefix = DevicePrefix(slot[0], self.nbytes, written)
            weakref.finalize(prefix, self._give_back, (slot[0], written)).atexit = False
            prefixes.append(prefix)
        try:
            for last in {id(writer): writer for _, writer in slots if writer is not None}.values():
                self._cuda.wait(stream, last.event)  # for what the slots held before
            targets = [prefix.address for prefix in prefixes]
            self._cuda.copy_many(targets, range_of(source, self.nbytes, count), [self.nbytes] * count, stream)
            self._cuda.record(event, stream)
        except BaseException:
            with suppress(BackendError):  # the event does not say when the slots are free again
                self._cuda.synchronize(stream)
            raise
        return prefixes

    def place(self, prefix: npt.NDArray[Any], stream: Stream) -> DevicePrefix:
        """Copy one prefix from the host into a slot of its own, and wait until it is there."""
        pinned = self._cuda.malloc_host(prefix.shape, prefix.dtype)
        try:
            np.copyto(pinned, prefix)
            (placed,) = self.store(pinned.ctypes.data, 1, stream)
            self._cuda.synchronize(stream)
        finally:
            self._cuda.free_host(pinned)
        return placed

    def gather(self, target: Address, prefixes: Sequence[DevicePrefix], stream: Stream) -> None:
        """Copy prefixes one after the other to `target`; the caller keeps them until the stream has done so."""
        for event in {prefix.written.event for prefix in prefixes}:
            self._cuda.wait(stream, event)
        count, sources = len(prefixes), [prefix.address for prefix in prefixes]
        self._cuda.copy_many(range_of(target, self.nbytes, count), sources, [self.nbytes] * count, stream)

    def close(self) -> None:
        """Free the device memory; the prefixes must not be used any more."""
        with self._lock:
            self._closed, self._free, self._events = True, [], []
            self._held.close()

    def _take(self, count: int) -> tuple[list[Slot], Event]:
        """Slots, and an event to say when they are written: all of them or, after an error, none."""
        with self._lock:
            if self._closed:
                raise BackendError("the pool of prefixes is closed")
            if not self._events:
                event = self._cuda.event()
                self._held.callback(self._cuda.destroy_event, event)
                self._events.append(event)
            while (missing := count - len(self._free)) > 0:
                self._grow(missing)
            # Finalisers append meanwhile, to the end, so that what stands before is not changed.
            slots, event = [self._free.pop() for _ in range(count)], self._events.pop()
        return slots, event

    def _grow(self, missing: int) -> None:
        slots = max(missing, _SLOTS_PER_BLOCK)
        try:
            block = self._cuda.malloc(self.nbytes * slots)
        except DeviceMemoryError:
            slots = missing  # a smaller block may find its place
            block = self._cuda.malloc(self.nbytes * slots)
        self._held.callback(self._cuda.free, block)
        self._free += [(address, None) for address in range_of(block, self.nbytes, slots)]

    def _give_back(self, slot: Slot) -> None:
        # No lock: a finaliser can run inside `_take`, in the thread that holds it. Appending to a list is atomic.
        if not self._closed:
            self._free.append(slot)


def range_of(start: Address, step: int, count: int) -> range:
    """Addresses of pieces of one size that lie one after the other."""
    return range(start, start + step * count, step)
