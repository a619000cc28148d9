"""The bundle's ONNX graphs in ONNX Runtime on a GPU, through its CUDA or TensorRT provider.

Everything is bound to device memory of our own and queued on one stream of our own, so prefixes never visit the host
and the host waits once a request, for the emissions.
"""

from collections.abc import Mapping, Sequence
from math import prod
from threading import Lock
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Array, Pixels, Prefix, TextInputs, no_pictures
from hvpnet_runtime.backends.cuda import Address, Cuda
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.onnxruntime import Providers, load_grounder, load_session, require_provider
from hvpnet_runtime.bundle import Axis, Bundle, GraphName, TensorSpec
from hvpnet_runtime.errors import BackendError

Kind: TypeAlias = Literal["onnxruntime-tensorrt", "onnxruntime-cuda"]


_PROVIDERS: dict[Kind, str] = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
}


class OnnxRuntimeGpuBackend:
    """See `Backend`. Prefixes are `DevicePrefix`. Requests of several threads run one after the other.

    Args:
        bundle: a checked bundle.
        kind: which provider.
        precision: `fp16` or `fp32`; by default FP16 where the bundle has it.
        cuda: the device; by default the current one.

    Raises:
        MissingExtraError: ONNX Runtime or cuda-bindings is not installed.
        BundleError: the bundle does not have the precision, or it is INT8, whose graphs are for CPUs; or a graph is of
            another model.
        BackendError: there is no GPU, or the provider is not in this build or does not load.
    """

    device_type = "cuda"
    grounder_providers: Providers = MappingProxyType({"CUDAExecutionProvider": MappingProxyType({})})
    max_length: int | None = None
    run_tokens: int | None = None

    def __init__(self, bundle: Bundle, kind: Kind, precision: str | None = None, *, cuda: Cuda | None = None) -> None:
        self.name: str = kind
        chosen = bundle.prefer("fp16", "fp32", wanted=precision)
        self.precision: str = chosen
        self._runtime = require_provider(_PROVIDERS[kind], "gpu")
        self._cuda = Cuda() if cuda is None else cuda
        self._bundle, self._specs = bundle, bundle.specs(chosen)
        self._stream = self._cuda.stream()
        options = self._runtime.SessionOptions()
        providers = self.providers(kind, self._stream)
        try:
            self._sessions = {
                graph: load_session(
                    self._runtime, bundle.onnx(graph, chosen), bundle.graph(graph, chosen), spec, providers, options
                )
                for graph, spec in self._specs.items()
            }
        except BaseException:
            self._cuda.destroy_stream(self._stream)
            raise
        self._run_options = self._runtime.RunOptions()
        # We wait for the stream ourselves, once a request.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._pool: PrefixPool | None = None
        if "vision" in self._specs:
            self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))
        self._device: dict[str, tuple[Address, int]] = {}
        self._pinned: dict[str, Array] = {}  # uint8 [bytes] each
        self._reading: set[str] = set()  # pinned memory that a queued copy reads
        self._lock, self._closed = Lock(), False

    def providers(self, kind: Kind, stream: int) -> Providers:
        """ONNX Runtime's providers and their options; the TensorRT one hands what it cannot run to the CUDA one."""
        cuda = {"CUDAExecutionProvider": {"user_compute_stream": str(stream)}}
        if kind == "onnxruntime-cuda":
            return cuda
        folder = self._bundle.path / "engines" / f"onnxruntime-{self._runtime.__version__}"
        tensorrt = {
            "user_compute_stream": str(stream),
            "trt_engine_cache_enable": "1",
            "trt_timing_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_path": str(folder),
        }
        return {"TensorrtExecutionProvider": tensorrt, **cuda}

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        with self._lock:
            pool = self._prefix_pool()
            binding = self._sessions["vision"].io_binding()
            self._upload(binding, "images", pixels)
            prefix, _ = self._bind_output(binding, self._specs["vision"].output, {"pictures": len(pixels)})
            self._run("vision", binding)
            return pool.store(prefix, len(pixels), self._stream)

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        with self._lock:
            return self._prefix_pool().place(prefix.astype(self._specs["vision"].output.dtype), self._stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        with self._lock:
            if self._closed:
                raise BackendError(f"the backend {self.name} is closed")
            binding = self._sessions["text"].io_binding()
            for name, array in text.arrays().items():
                self._upload(binding, name, array)
            if self._pool is not None:
                gathered = cast("list[DevicePrefix]", [prefix for row in prefixes for prefix in row])
                (spec,) = (tensor for tensor in self._specs["text"].inputs if tensor.name == "prefix")
                address = self._memory("gathered", len(gathered) * self._pool.nbytes)
                self._pool.gather(address, gathered, self._stream)
                shape = spec.shape({"batch": len(prefixes)})
                binding.bind_input(spec.name, self.device_type, 0, spec.dtype, shape, address)
            batch, length = text.input_ids.shape
            spec = self._specs["text"].output
            output, shape = self._bind_output(binding, spec, {"batch": batch, "length": length})
            self._run("text", binding)
            pinned = self._staging(spec.name, shape, spec.dtype)
            self._cuda.copy(pinned.ctypes.data, output, pinned.nbytes, self._stream)
            self._cuda.synchronize(self._stream)
            self._reading.clear()
            return pinned.copy()

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. It runs on the CUDA provider: the TensorRT one would build for minutes."""
        providers, options = self.grounder_providers, self._runtime.SessionOptions()
        return load_grounder(self._runtime, self._bundle, self.name, self.precision, providers, options)

    def close(self) -> None:
        """See `Backend`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._cuda.synchronize(self._stream)
            self._sessions = {}
            if self._pool is not None:
                self._pool.close()
            for address, _ in self._device.values():
                self._cuda.free(address)
            for pinned in self._pinned.values():
                self._cuda.free_host(pinned)
            self._device, self._pinned = {}, {}
            self._cuda.destroy_stream(self._stream)

    def _prefix_pool(self) -> PrefixPool:
        if self._closed or self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        return self._pool

    def _upload(self, binding: Any, name: str, array: Array) -> None:  # noqa: ANN401
        pinned = self._staging(name, array.shape, array.dtype)
        pinned[...] = array
        address = self._memory(name, array.nbytes)
        self._cuda.copy(address, pinned.ctypes.data, array.nbytes, self._stream)
        self._reading.add(name)
        binding.bind_input(name, self.device_type, 0, array.dtype, array.shape, address)

    def _bind_output(
        self,
        binding: Any,  # noqa: ANN401
        spec: TensorSpec,
        sizes: Mapping[Axis, int],
    ) -> tuple[Address, tuple[int, ...]]:
        shape = spec.shape(sizes)
        address = self._memory(spec.name, spec.nbytes(sizes))
        binding.bind_output(spec.name, self.device_type, 0, spec.dtype, shape, address)
        return address, shape

    def _run(self, graph: GraphName, binding: Any) -> None:  # noqa: ANN401
        try:
            self._sessions[graph].run_with_iobinding(binding, self._run_options)
        except Exception as error:  # its exception classes are private to the extension
            raise BackendError(f"{self.name} failed: {str(error).splitlines()[0]}") from error

    def _memory(self, name: str, size: int) -> Address:
        """Device memory kept under a name, which grows when a request needs more."""
        address, held = self._device.get(name, (0, -1))
        if held < size:
            self._cuda.synchronize(self._stream)
            if held >= 0:
                self._cuda.free(address)
            address = self._cuda.malloc(size)
            self._device[name] = address, size
        return address

    def _staging(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Pinned memory kept under a name, which grows; what a request still under way reads is waited for."""
        size = prod(shape) * dtype.itemsize
        pinned = self._pinned.get(name)
        if name in self._reading:
            self._cuda.synchronize(self._stream)
            self._reading.clear()
        if pinned is None or pinned.nbytes < size:
            if pinned is not None:
                self._cuda.free_host(pinned)
            pinned = self._pinned[name] = self._cuda.malloc_host((size,), np.uint8)
        return pinned[:size].view(dtype).reshape(shape)
