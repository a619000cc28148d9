"""Prefixes in device memory: slots of one size, taken and given back without a call that would stall the device."""

import weakref
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.cuda import Address, Cuda, Event, Stream

_SLOTS_PER_BLOCK = 64


class DevicePrefix:
    """One picture's prefix on the device; its slot is given back when the last reference goes.

    Attributes:
        address: where it stands.
        nbytes: its size.
        ready: happens when it has been written.
    """

    def __init__(self, address: Address, nbytes: int, ready: Event) -> None:
        self.address, self.nbytes, self.ready = address, nbytes, ready


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
        self._blocks: list[Address] = []
        self._events: list[Event] = []
        self._free: list[tuple[Address, Event]] = []
        self._lock = Lock()
        self._closed = False

    def store(self, source: Address, count: int, stream: Stream) -> list[DevicePrefix]:
        """Copy `count` prefixes that lie one after the other at `source` into slots of their own."""
        prefixes = [self._take() for _ in range(count)]
        for index, prefix in enumerate(prefixes):
            self._cuda.wait(stream, prefix.ready)  # for what the slot held before
            self._cuda.copy(prefix.address, source + index * self.nbytes, self.nbytes, stream)
            self._cuda.record(prefix.ready, stream)
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
        for event in {prefix.ready for prefix in prefixes}:
            self._cuda.wait(stream, event)
        for index, prefix in enumerate(prefixes):
            self._cuda.copy(target + index * self.nbytes, prefix.address, self.nbytes, stream)

    def close(self) -> None:
        """Free the device memory; the prefixes must not be used any more."""
        with self._lock:
            self._closed = True
            for event in self._events:
                self._cuda.destroy_event(event)
            for block in self._blocks:
                self._cuda.free(block)
            self._free, self._events, self._blocks = [], [], []

    def _take(self) -> DevicePrefix:
        with self._lock:
            if not self._free:
                self._grow()
            slot = self._free.pop()
        prefix = DevicePrefix(slot[0], self.nbytes, slot[1])
        weakref.finalize(prefix, self._give_back, slot).atexit = False
        return prefix

    def _grow(self) -> None:
        block = self._cuda.malloc(self.nbytes * _SLOTS_PER_BLOCK)
        self._blocks.append(block)
        for index in range(_SLOTS_PER_BLOCK):
            event = self._cuda.event()
            self._events.append(event)
            self._free.append((block + index * self.nbytes, event))

    def _give_back(self, slot: tuple[Address, Event]) -> None:
        # No lock: a finaliser can run inside `_take`, in the thread that holds it. Appending to a list is atomic.
        if not self._closed:
            self._free.append(slot)
