"""Memory of the device and of the host that runs on one stream use one after the other, kept by name."""

from math import prod
from typing import Any

import numpy as np

from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.backends.cuda import Address, Cuda, Stream


class DeviceBuffers:
    """Buffers that grow when a run needs more. Not thread-safe.

    Args:
        cuda: the device.
        stream: that all copies are queued on.
    """

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        self._cuda, self._stream = cuda, stream
        self._device: dict[str, tuple[Address, int]] = {}
        self._pinned: dict[str, Array] = {}  # uint8 [bytes] each
        self._reading: set[str] = set()  # pinned memory that a queued copy reads

    def device(self, name: str, size: int) -> Address:
        """Device memory of at least so many bytes.

        Raises:
            DeviceMemoryError: there is too little.
        """
        address, held = self._device.get(name, (0, -1))
        if held >= size:
            return address
        self.synchronize()
        if held >= 0:
            del self._device[name]  # before it is freed, for the next allocation may fail
            self._cuda.free(address)
        address = self._cuda.malloc(size)
        self._device[name] = address, size
        return address

    def upload(self, name: str, array: Array, shape: tuple[int, ...]) -> Address:
        """Queue a copy of an array to the device, padded with 0 to a shape.

        Raises:
            DeviceMemoryError: there is too little.
        """
        pinned = self._host(name, shape, array.dtype)
        if array.shape != shape:
            pinned.fill(0)
        pinned[tuple(map(slice, array.shape))] = array
        address = self.device(name, pinned.nbytes)
        self._cuda.copy(address, pinned.ctypes.data, pinned.nbytes, self._stream)
        self._reading.add(name)
        return address

    def download(self, name: str, address: Address, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        """Wait for everything queued, and give a tensor of the device, which holds until the next download."""
        pinned = self._host(name, shape, dtype)
        self._cuda.copy(pinned.ctypes.data, address, pinned.nbytes, self._stream)
        self.synchronize()
        return pinned

    def synchronize(self) -> None:
        """Wait for everything queued."""
        self._cuda.synchronize(self._stream)
        self._reading.clear()

    def close(self) -> None:
        """Free everything."""
        self.synchronize()
        for address, _ in self._device.values():
            self._cuda.free(address)
        for pinned in self._pinned.values():
            self._cuda.free_host(pinned)
        self._device, self._pinned = {}, {}

    def _host(self, name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        """Pinned memory; what a copy under way reads is waited for."""
        size = prod(shape) * dtype.itemsize
        if name in self._reading:
            self.synchronize()
        if name not in self._pinned or self._pinned[name].nbytes < size:
            if name in self._pinned:
                self._cuda.free_host(self._pinned.pop(name))  # popped first, for the next allocation may fail
            self._pinned[name] = self._cuda.malloc_host((size,), np.uint8)
        return self._pinned[name][:size].view(dtype).reshape(shape)
