"""The few calls of the CUDA runtime that the backends make, through cuda-bindings; a failed call is a typed error.

Addresses, streams, events and graphs are plain integers to the callers.
"""

import ctypes
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.captures import exclusive
from hvpnet_runtime.errors import BackendError, DeviceMemoryError, MissingExtraError
from hvpnet_runtime.processes import Origin

_log = logging.getLogger(__name__)

Address: TypeAlias = int
Stream: TypeAlias = int
Event: TypeAlias = int
Graph: TypeAlias = int


@dataclass(frozen=True)
class Device:
    """What a GPU is.

    Attributes:
        name: as the driver gives it.
        compute_capability: for instance `9.0`.
        driver: newest CUDA version that the driver supports.
    """

    name: str
    compute_capability: str
    driver: str


class Cuda:
    """One CUDA device, for any number of threads: each is put on it before its first call.

    Attributes:
        ordinal: its number among the GPUs that this process may use.
        count: how many these are.

    Args:
        ordinal: see above.
        extra: which brings cuda-bindings together with the backend that asks.

    Raises:
        MissingExtraError: cuda-bindings is not installed.
        BackendError: there is no such GPU, its driver is too old, or this process was forked from one that used CUDA.
    """

    _first: Origin | None = None
    """The process that used CUDA first, here or in an ancestor."""

    def __init__(self, ordinal: int = 0, extra: str = "gpu") -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingExtraError("cuda-bindings", extra, "running on a GPU") from error
        if Cuda._first is not None and not Cuda._first.is_here:
            raise BackendError(
                "CUDA was used before this process was forked, and works in no process forked afterwards: fork first,"
                " or start processes by spawn"
            )
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or not count:
            raise BackendError(f"no usable CUDA GPU ({status.name}): check nvidia-smi and the driver's version")
        Cuda._first = Cuda._first or Origin()
        if not 0 <= ordinal < count:
            there = "GPU 0 alone" if count == 1 else f"GPUs 0 to {count - 1}"
            raise BackendError(f"there is no GPU {ordinal}: this process may use {there}")
        self.ordinal, self.count = ordinal, int(count)
        self._bind(runtime)

    def _bind(self, runtime: Any) -> None:  # noqa: ANN401  the bindings have no types
        self._cuda, self._current = runtime, (runtime, self.ordinal)
        self._batched = hasattr(runtime, "cudaMemcpyBatchAsync")  # CUDA 12.8 and newer

    def use(self) -> None:
        """Put the calling thread on this device, whatever another library did with the thread meanwhile.

        Calls of this class need no such call before; those of other libraries, like TensorRT's, do.
        """
        _thread.current = self._current  # before the call, which comes back here
        try:
            self._call(self._cuda.cudaSetDevice, self.ordinal)
        except BackendError:
            _thread.current = None
            raise

    def exclusive(self) -> AbstractContextManager[bool]:
        """The device's lock, for what breaks a capture in another thread; see `captures`."""
        return exclusive(self.ordinal)

    def device(self) -> Device:
        """What the GPU is."""
        cuda = self._cuda
        properties = self._call(cuda.cudaGetDeviceProperties, self.ordinal)
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        capability = f"{properties.major}.{properties.minor}"
        return Device(name.rstrip("\0"), capability, cuda_version(self._call(cuda.cudaDriverGetVersion)))

    def total_memory(self) -> int:
        """Bytes of memory that the GPU has, used or not."""
        _, total = self._call(self._cuda.cudaMemGetInfo)
        return int(total)

    def malloc(self, size: int) -> Address:
        """Device memory, aligned to 256 bytes.

        Raises:
            DeviceMemoryError: there is not so much left.
        """
        with self.exclusive():
            return int(self._call(self._cuda.cudaMalloc, max(size, 1)))

    def free(self, address: Address) -> None:
        """Give device memory back, once the device has done what it does."""
        with self.exclusive():
            self._call(self._cuda.cudaFree, address)

    def malloc_host(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array in page-locked memory, which copies to and from the device need in order to be asynchronous.

        Raises:
            DeviceMemoryError: there is not so much left.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self.exclusive():
            address = int(self._call(self._cuda.cudaMallocHost, max(size, 1)))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))  # uint8 [size]
        pinned: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        return pinned

    def free_host(self, pinned: npt.NDArray[Any]) -> None:
        """Give pinned memory back; the array must not be used any more."""
        with self.exclusive():
            self._call(self._cuda.cudaFreeHost, pinned.ctypes.data)

    def stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        return int(self._call(self._cuda.cudaStreamCreateWithFlags, self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: Stream) -> None:
        """Free a stream."""
        self._call(self._cuda.cudaStreamDestroy, stream)

    def synchronize(self, stream: Stream) -> None:
        """Wait until a stream has done its work."""
        self._call(self._cuda.cudaStreamSynchronize, stream)

    def copy(self, target: Address, source: Address, size: int, stream: Stream) -> None:
        """Copy between host and device or within either, asynchronously."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault
        self._call(self._cuda.cudaMemcpyAsync, target, source, size, kind, stream)

    def copy_many(
        self, targets: Sequence[Address], sources: Sequence[Address], sizes: Sequence[int], stream: Stream
    ) -> None:
        """Copy several pieces that do not overlap, as `copy` does, in one call where CUDA can; not during a capture.

        Args:
            targets: an address for each piece.
            sources: likewise.
            sizes: bytes of each piece.
            stream: not the default one.
        """
        if self._batched and len(sizes) > 1 and self._copy_batch(targets, sources, sizes, stream):
            return
        for target, source, size in zip(targets, sources, sizes, strict=True):
            self.copy(target, source, size, stream)

    def _copy_batch(
        self, targets: Sequence[Address], sources: Sequence[Address], sizes: Sequence[int], stream: Stream
    ) -> bool:
        cuda = self._cuda
        in_order = cuda.cudaMemcpyAttributes()  # sources are read when the stream comes to it
        in_order.srcAccessOrder = cuda.cudaMemcpySrcAccessOrder.cudaMemcpySrcAccessOrderStream
        pieces = list(targets), list(sources), list(sizes), len(sizes)
        try:
            self._call(cuda.cudaMemcpyBatchAsync, *pieces, [in_order], [0], 1, stream)
        except BackendError as error:
            self._batched = False  # the driver may be older; single copies say what else is wrong
            _log.info("%s: pieces are copied one by one", error)
        return self._batched

    def event(self) -> Event:
        """An event that carries no time."""
        return int(self._call(self._cuda.cudaEventCreateWithFlags, self._cuda.cudaEventDisableTiming))

    def destroy_event(self, event: Event) -> None:
        """Free an event; work that waits for it still does."""
        self._call(self._cuda.cudaEventDestroy, event)

    def record(self, event: Event, stream: Stream) -> None:
        """Have an event happen when the stream has done what was queued so far."""
        self._call(self._cuda.cudaEventRecord, event, stream)

    def wait(self, stream: Stream, event: Event) -> None:
        """Have a stream wait for an event, without the host waiting."""
        self._call(self._cuda.cudaStreamWaitEvent, stream, event, 0)

    def begin_capture(self, stream: Stream) -> None:
        """Record what is queued on a stream from here on, instead of running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal  # other threads go on meanwhile
        self._call(self._cuda.cudaStreamBeginCapture, stream, mode)

    def end_capture(self, stream: Stream) -> Graph:
        """What was recorded, ready to be launched."""
        graph = self._call(self._cuda.cudaStreamEndCapture, stream)
        try:
            return int(self._call(self._cuda.cudaGraphInstantiate, graph, 0))
        finally:
            self._call(self._cuda.cudaGraphDestroy, graph)

    def launch(self, graph: Graph, stream: Stream) -> None:
        """Queue a recorded graph."""
        self._call(self._cuda.cudaGraphLaunch, graph, stream)

    def destroy_graph(self, graph: Graph) -> None:
        """Free a recorded graph."""
        self._call(self._cuda.cudaGraphExecDestroy, graph)

    def _call(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401  the bindings have no types
        if getattr(_thread, "current", None) != self._current:
            self.use()
        status, *values = function(*arguments)
        cuda = self._cuda
        if status != cuda.cudaError_t.cudaSuccess:
            cuda.cudaGetLastError()  # else a later call of another library might report it as its own
            message = f"{function.__name__} failed: {status.name}"
            if status == cuda.cudaError_t.cudaErrorMemoryAllocation:
                raise DeviceMemoryError(f"{message}: end what else runs on GPU {self.ordinal}, or ask for less at once")
            raise BackendError(message)
        return values[0] if len(values) == 1 else tuple(values)


_thread = threading.local()
"""`current` is the device that our calls put a thread on."""


def cuda_version(number: int) -> str:
    """CUDA's version number as people write it: 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cuda_runtime_version() -> str | None:
    """Version of the CUDA runtime that cuda-bindings carries; None where it is not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    _, number = runtime.cudaRuntimeGetVersion()
    return cuda_version(number)


def find_device(ordinal: int = 0) -> Device | None:
    """A GPU by its number, or None where it is not there or cuda-bindings is not installed."""
    try:
        return Cuda(ordinal).device()
    except (BackendError, MissingExtraError):
        return None


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as the `CUDA_VISIBLE_DEVICES` of a process that is to have it alone.

    None where there is no GPU or cuda-bindings is not installed.
    """
    try:
        count = Cuda().count
    except (BackendError, MissingExtraError):
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")  # the first that is not there ends the list
    names = [name.strip() for name in given.split(",")] if given else [str(number) for number in range(count)]
    return names[:count]
