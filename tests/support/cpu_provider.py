"""ONNX Runtime's GPU backend on a device in host memory, where the CPU provider runs what is bound to it."""

from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import onnxruntime
from fake_gpu import FakeCuda

from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.backends.onnxruntime_options import PROVIDERS

CPU_PROVIDER = MappingProxyType({"CPUExecutionProvider": MappingProxyType({})})


class QueuedSession:
    """A session that runs when the device's stream comes to it, as on a GPU, and fails beyond `room` rows."""

    def __init__(self, session: Any, backend: "CpuProviderBackend") -> None:
        self._session, self._backend = session, backend

    def io_binding(self) -> Any:
        return Binding(self._session.io_binding(), self._backend.bound)

    def run_with_iobinding(self, binding: "Binding", options: Any) -> None:
        if binding.rows > self._backend.room:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 7")
        if self._backend.breaks and self._backend._cuda.captures:
            self._backend.breaks -= 1
            self._backend.stale = self._backend.libraries
            raise RuntimeError("CUDA failure 907: operation not permitted when stream is capturing")
        if self._backend.stale:
            self._backend.stale -= 1
            raise RuntimeError("CUDNN failure 901: operation failed due to a previous error during capture")
        self._backend.runs += 1
        work = lambda: self._session.run_with_iobinding(binding.real, options)  # noqa: E731
        self._backend._cuda.queue(self._backend.stream, work)


class Binding:
    """A binding that notes the shapes of inputs."""

    def __init__(self, real: Any, bound: list[tuple[str, tuple[int, ...]]]) -> None:
        self.real, self._bound, self.rows = real, bound, 0

    def bind_input(self, name: str, device: str, ordinal: int, dtype: Any, shape: Any, address: int) -> None:
        self._bound.append((name, tuple(shape)))
        self.rows = shape[0]
        self.real.bind_input(name, device, ordinal, dtype, shape, address)

    def bind_output(self, *arguments: Any) -> None:
        self.real.bind_output(*arguments)


class CpuProviderBackend(OnnxRuntimeGpuBackend):
    """See the module.

    Attributes:
        bound: the inputs that sessions were bound to, and their shapes.
        room: rows that the device has memory for.
        breaks: captures that fail from here on.
        libraries: runs that fail after such a capture: each library under ONNX Runtime reports its last error once.
        stale: how many of these are to come.
        runs: that ONNX Runtime was asked for; the launches of CUDA graphs are not among them.
    """

    device_type = "cpu"

    def __init__(self, *arguments: Any, cuda: FakeCuda | None = None, **options: Any) -> None:
        self.bound: list[tuple[str, tuple[int, ...]]] = []
        self.room, self.breaks, self.runs, self.stream = 999, 0, 0, 0
        self.libraries, self.stale = 3, 0
        with patch.object(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values())):
            super().__init__(*arguments, cuda=cuda or FakeCuda(), **options)

    def providers(self, spec: Any, stream: int) -> Any:
        self.stream = stream
        return CPU_PROVIDER

    def grounder_providers(self, precision: str) -> Any:
        return CPU_PROVIDER

    def _load(self, *arguments: Any) -> Any:
        return QueuedSession(super()._load(*arguments), self)
