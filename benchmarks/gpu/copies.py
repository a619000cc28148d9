"""The device itself: its memory, a wait for all of its work, and copies as backends make them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from fake_gpu import FakeCuda

from hvpnet_runtime.backends.cuda import Cuda


def synchronize() -> None:
    """Wait until the device has done everything that was queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_bytes() -> int:
    """Memory in use on the device, by whomever; 0 without one. Its context is there once this has been asked."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


class Copies:
    """Copies between page-locked memory and the device."""

    def __init__(self, *, dry_run: bool) -> None:
        self._cuda = FakeCuda() if dry_run else Cuda()
        self._stream = self._cuda.stream()

    @contextmanager
    def of(self, read: int, written: int) -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
        """Calls that copy so many bytes in, and out, and give the seconds it took."""
        host = self._cuda.malloc_host((max(read, written),), np.uint8)
        device = self._cuda.malloc(host.nbytes)

        def timed(target: int, source: int, size: int) -> float:
            start = perf_counter()
            self._cuda.copy(target, source, size, self._stream)
            self._cuda.synchronize(self._stream)
            return perf_counter() - start

        try:
            yield lambda: timed(device, host.ctypes.data, read), lambda: timed(host.ctypes.data, device, written)
        finally:
            self._cuda.free(device)
            self._cuda.free_host(host)
