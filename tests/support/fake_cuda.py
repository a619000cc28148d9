"""The CUDA runtime in host memory, as cuda-bindings offers it: it really copies, and punishes what a real one would.

Streams are lazy: nothing queued runs before somebody waits for it, so that a missing wait shows. New memory is full of
NaN. Every access must lie in live memory. `FakeRuntime.leaks` lists what was never freed.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from threading import RLock, get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np

from hvpnet_runtime.backends.cuda import Cuda, Device

FAKE_GPU = Device("NVIDIA Fake 1", "9.0", "13.0")

Work = Callable[[], None]
Status = Enum(
    "Status",
    "cudaSuccess cudaErrorMemoryAllocation cudaErrorInvalidDevice cudaErrorNotSupported "
    "cudaErrorStreamCaptureUnsupported cudaErrorStreamCaptureInvalidated cudaErrorIllegalState",
)
OK = Status.cudaSuccess


@dataclass
class Capture:
    """A stream that records."""

    thread: int
    work: list[Work] = field(default_factory=list)
    broken: bool = False


class FakeRuntime:
    """See the module.

    Attributes:
        limit: bytes of device memory that may be allocated.
        failing: how many of the next calls of a name return which status.
        broken_captures: captures that another call broke.
    """

    cudaError_t = Status  # noqa: N815
    cudaStreamNonBlocking = cudaEventDisableTiming = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaMemcpySrcAccessOrder = SimpleNamespace(cudaMemcpySrcAccessOrderStream=1)  # noqa: N815
    cudaMemcpyAttributes = SimpleNamespace  # noqa: N815

    def __init__(self, *, eager: bool = False, gpu: Device = FAKE_GPU, count: int = 1) -> None:
        self.eager, self.gpu, self.count = eager, gpu, count
        self.memory: dict[int, np.ndarray] = {}
        self.host: set[int] = set()
        self.streams: dict[int, deque[Work]] = {}
        self.stream_device: dict[int, int] = {}
        self.captures: dict[int, Capture] = {}
        self.templates: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.events: dict[int, tuple[int, object]] = {}
        self.done: set[int] = set()
        self.tokens: list[object] = []
        self.current: dict[int, int] = {}
        self.failing: dict[str, tuple[int, Status]] = {}
        self.limit = 2**40
        self.launches = self.synchronisations = self.allocations = self.copies = self.recorded = 0
        self.broken_captures = 0
        self._ids = itertools.count(1)
        self._lock = RLock()

    def leaks(self) -> dict[str, int]:
        names = ("memory", "streams", "captures", "templates", "graphs", "events")
        return {name: len(getattr(self, name)) for name in names if getattr(self, name)}

    # What the fake library uses

    @property
    def device_bytes(self) -> int:
        return sum(array.nbytes for address, array in self.memory.items() if address not in self.host)

    def current_device(self) -> int:
        return self.current.get(get_ident(), 0)

    def at(self, address: int, size: int) -> np.ndarray:
        for start, array in self.memory.items():
            if start <= address and address + size <= start + array.nbytes:
                return array[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address} are not in live memory")

    def queue(self, stream: int, work: Work) -> None:
        with self._lock:
            if stream in self.captures:
                self.captures[stream].work.append(work)
            elif self.eager:
                work()
            else:
                self.streams[stream].append(work)

    def wait_for_device(self) -> Status:
        """What breaks a capture in any thread."""
        with self._lock:
            for capture in self.captures.values():
                self.broken_captures += not capture.broken
                capture.broken = True
            for stream in list(self.streams):
                if stream not in self.captures:
                    self._drain(stream)
            return Status.cudaErrorStreamCaptureUnsupported if self.captures else OK

    def _drain(self, stream: int) -> None:
        with self._lock:
            while self.streams[stream]:
                self.streams[stream].popleft()()

    def _fails(self, name: str) -> Status | None:
        left, status = self.failing.get(name, (0, OK))
        if not left:
            return None
        self.failing[name] = (left - 1, status)
        return status

    # The bindings

    def cudaGetLastError(self) -> Any:  # noqa: N802
        return (OK,)

    def cudaSetDevice(self, ordinal: int) -> Any:  # noqa: N802
        self.current[get_ident()] = ordinal
        return (OK if 0 <= ordinal < self.count else Status.cudaErrorInvalidDevice,)

    def cudaGetDeviceProperties(self, _ordinal: int) -> Any:  # noqa: N802
        major, minor = map(int, self.gpu.compute_capability.split("."))
        return OK, SimpleNamespace(name=self.gpu.name.encode() + b"\0", major=major, minor=minor)

    def cudaDriverGetVersion(self) -> Any:  # noqa: N802
        major, minor = map(int, self.gpu.driver.split("."))
        return OK, major * 1000 + minor * 10

    def cudaDeviceSynchronize(self) -> Any:  # noqa: N802
        return (self.wait_for_device(),)

    def cudaMemGetInfo(self) -> Any:  # noqa: N802
        return OK, self.limit - self.device_bytes, self.limit

    def cudaMalloc(self, size: int) -> Any:  # noqa: N802
        with self._lock:
            if failed := self._fails("cudaMalloc"):
                return failed, None
            if self.device_bytes + size > self.limit:
                return Status.cudaErrorMemoryAllocation, None
            return self._allocate(size)

    def cudaMallocHost(self, size: int) -> Any:  # noqa: N802
        with self._lock:
            if failed := self._fails("cudaMallocHost"):
                return failed, None
            status, address = self._allocate(size)
            if address is not None:
                self.host.add(address)
            return status, address

    def _allocate(self, size: int) -> Any:
        for capture in self.captures.values():
            if capture.thread == get_ident():
                self.broken_captures += not capture.broken
                capture.broken = True
                return Status.cudaErrorStreamCaptureUnsupported, None
        self.allocations += 1
        array = np.full(size, 0xFF, np.uint8)  # NaN in every float format
        self.memory[array.ctypes.data] = array
        return OK, int(array.ctypes.data)

    def cudaFree(self, address: int) -> Any:  # noqa: N802
        with self._lock:
            self.wait_for_device()
            del self.memory[address]
            return (OK,)

    def cudaFreeHost(self, address: int) -> Any:  # noqa: N802
        with self._lock:
            self.host.remove(address)
            return self.cudaFree(address)

    def cudaStreamCreateWithFlags(self, _flags: int) -> Any:  # noqa: N802
        if failed := self._fails("cudaStreamCreateWithFlags"):
            return failed, None
        number = next(self._ids)
        self.streams[number], self.stream_device[number] = deque(), self.current_device()
        return OK, number

    def cudaStreamDestroy(self, stream: int) -> Any:  # noqa: N802
        self._drain(stream)
        del self.streams[stream]
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> Any:  # noqa: N802
        with self._lock:
            if stream in self.captures:
                raise AssertionError("a stream is synchronised during its capture")
            self.synchronisations += 1
            self._drain(stream)
            return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, _kind: int, stream: int) -> Any:  # noqa: N802
        def work() -> None:
            self.at(target, size)[:] = self.at(source, size)

        self.copies += 1
        self.queue(stream, work)
        return (OK,)

    def cudaMemcpyBatchAsync(  # noqa: N802
        self,
        targets: list[int],
        sources: list[int],
        sizes: list[int],
        count: int,
        attributes: list[Any],
        first: list[int],
        kinds: int,
        stream: int,
    ) -> Any:
        if failed := self._fails("cudaMemcpyBatchAsync"):
            return (failed,)
        assert stream not in self.captures
        assert (count, kinds, first, attributes[0].srcAccessOrder) == (len(sizes), 1, [0], 1)
        self.copies += 1

        def work() -> None:
            for target, source, size in zip(targets, sources, sizes, strict=True):
                self.at(target, size)[:] = self.at(source, size)

        self.queue(stream, work)
        return (OK,)

    def cudaEventCreateWithFlags(self, _flags: int) -> Any:  # noqa: N802
        if failed := self._fails("cudaEventCreateWithFlags"):
            return failed, None
        number = next(self._ids)
        self.events[number] = (0, None)  # never recorded: already done
        return OK, number

    def cudaEventDestroy(self, event: int) -> Any:  # noqa: N802
        del self.events[event]
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> Any:  # noqa: N802
        if failed := self._fails("cudaEventRecord"):
            return (failed,)
        token = object()
        with self._lock:
            self.recorded += 1
            self.tokens.append(token)  # alive, so that ids stay unique
            self.events[event] = (stream, token)
            self.queue(stream, lambda: self.done.add(id(token)))
        return (OK,)

    def cudaStreamWaitEvent(self, stream: int, event: int, _flags: int) -> Any:  # noqa: N802
        source, token = self.events[event]

        def work() -> None:
            while token is not None and id(token) not in self.done:
                self.streams[source].popleft()()

        self.queue(stream, work)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, _mode: int) -> Any:  # noqa: N802
        with self._lock:
            assert stream not in self.captures
            self.captures[stream] = Capture(get_ident())
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:  # noqa: N802
        with self._lock:
            capture = self.captures.pop(stream)
            failed = self._fails("cudaStreamEndCapture")
            assert capture.thread == get_ident()
            if failed or capture.broken:
                return failed or Status.cudaErrorStreamCaptureInvalidated, None
            number = next(self._ids)
            self.templates[number] = capture.work
            return OK, number

    def cudaGraphInstantiate(self, graph: int, _flags: int) -> Any:  # noqa: N802
        if failed := self._fails("cudaGraphInstantiate"):
            return failed, None
        number = next(self._ids)
        self.graphs[number] = self.templates[graph]
        return OK, number

    def cudaGraphDestroy(self, graph: int) -> Any:  # noqa: N802
        del self.templates[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:  # noqa: N802
        if failed := self._fails("cudaGraphLaunch"):
            return (failed,)
        self.launches += 1
        for work in self.graphs[graph]:
            self.queue(stream, work)
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> Any:  # noqa: N802
        del self.graphs[graph]
        return (OK,)


class FakeCuda(Cuda):
    """A device of a fake runtime, whose attributes it has too.

    Args:
        eager: runs what is queued at once, for libraries that really compute when called.
        gpu: what the device is.
        fake: a runtime that other devices share.
        ordinal: of the device in it.
    """

    def __init__(
        self, *, eager: bool = False, gpu: Device = FAKE_GPU, fake: FakeRuntime | None = None, ordinal: int = 0
    ) -> None:
        self.fake = fake or FakeRuntime(eager=eager, gpu=gpu)
        self.ordinal, self.count = ordinal, self.fake.count
        self._bind(self.fake)

    def __getattr__(self, name: str) -> Any:
        if name == "fake":
            raise AttributeError(name)
        return getattr(self.fake, name)
