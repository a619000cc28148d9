"""The few calls of the CUDA runtime that the backends make, through cuda-bindings; a failed call is a typed error.

Addresses, streams, events and graphs are plain integers to the callers.
"""

import ctypes
import os
from dataclasses import dataclass
from threading import local
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.errors import BackendError, DeviceMemoryError, MissingExtraError

Address: TypeAlias = int
Stream: TypeAlias = int
Event: TypeAlias = int
Graph: TypeAlias = int


@dataclass(frozen=True)
class Device:
    """The GPU in use.

    Attributes:
        name: as the driver gives it.
        compute_capability: for instance `9.0`.
        driver: newest CUDA version that the driver supports.
    """

    name: str
    compute_capability: str
    driver: str


class Cuda:
    """A CUDA device. Thread-safe: every call makes it the calling thread's current device.

    Attributes:
        count: GPUs that this process may use.
        ordinal: which of them this is, from 0.

    Args:
        ordinal: see above.

    Raises:
        MissingExtraError: cuda-bindings is not installed.
        BackendError: there is no GPU, or none of this number, or its driver is too old.
        DeviceMemoryError: of any call that finds too little free memory.
    """

    ordinal: int = 0

    def __init__(self, ordinal: int = 0) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise MissingExtraError("cuda-bindings", "gpu", "running on a GPU") from error
        self._cuda = runtime
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or not count:
            raise BackendError(f"no usable CUDA GPU ({status.name}): check nvidia-smi and the driver's version")
        self.count, self.ordinal, self._thread = int(count), ordinal, local()
        if not 0 <= ordinal < self.count:
            raise BackendError(f"there is no GPU {ordinal}: this process may use {self.count}, numbered from 0")

    def device(self) -> Device:
        """What the current GPU is."""
        cuda = self._cuda
        properties = self._call(cuda.cudaGetDeviceProperties, self.ordinal)
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        capability = f"{properties.major}.{properties.minor}"
        return Device(name.rstrip("\0"), capability, cuda_version(self._call(cuda.cudaDriverGetVersion)))

    def malloc(self, size: int) -> Address:
        """Device memory, aligned to 256 bytes."""
        return int(self._call(self._cuda.cudaMalloc, max(size, 1)))

    def free(self, address: Address) -> None:
        """Give device memory back."""
        self._call(self._cuda.cudaFree, address)

    def malloc_host(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array in page-locked memory, which copies to and from the device need in order to be asynchronous."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call(self._cuda.cudaMallocHost, max(size, 1)))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))  # uint8 [size]
        pinned: npt.NDArray[Any] = memory.view(dtype).reshape(shape)
        return pinned

    def free_host(self, pinned: npt.NDArray[Any]) -> None:
        """Give pinned memory back; the array must not be used any more."""
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
        if not getattr(self._thread, "is_set", False):
            self._thread.is_set = True
            self._call(self._cuda.cudaSetDevice, self.ordinal)
        status, *values = function(*arguments)
        if status == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise DeviceMemoryError(f"{function.__name__} failed: the GPU has too little free memory")
        if status != self._cuda.cudaError_t.cudaSuccess:
            raise BackendError(f"{function.__name__} failed: {status.name}")
        return values[0] if len(values) == 1 else tuple(values)


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


def find_device() -> Device | None:
    """The current GPU, or None where there is none or cuda-bindings is not installed."""
    try:
        return Cuda().device()
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
