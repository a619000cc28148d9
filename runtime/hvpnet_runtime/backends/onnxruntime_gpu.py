"""The bundle's ONNX graphs in ONNX Runtime on a GPU, through its CUDA or TensorRT provider.

Everything is bound to device memory of our own and queued on one stream of our own, so prefixes never visit the host
and the host waits once a request, for the emissions.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs, no_pictures
from hvpnet_runtime.backends.cuda import Address, Cuda, Pinned
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.onnxruntime import Providers, import_onnxruntime, load_session
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError

Kind: TypeAlias = Literal["onnxruntime-tensorrt", "onnxruntime-cuda"]

Array = npt.NDArray[Any]


class OnnxRuntimeGpuBackend:
    """See `Backend`. Prefixes are `DevicePrefix`. Requests of several threads run one after the other.

    Args:
        bundle: a checked bundle.
        kind: which provider.
        precision: `fp16` or `fp32`; by default FP16 where the bundle has it.
        cuda: the device; by default the current one.

    Raises:
        MissingExtraError: ONNX Runtime or cuda-bindings is not installed.
        BundleError: the bundle does not have the precision, or it is INT8, whose graphs are for CPUs.
        BackendError: there is no GPU, or the provider is not in this build or does not load.
    """

    device_type = "cuda"
    max_length: int | None = None

    def __init__(self, bundle: Bundle, kind: Kind, precision: str | None = None, *, cuda: Cuda | None = None) -> None:
        self.name: str = kind
        self.precision = bundle.prefer("fp16", "fp32", wanted=precision)
        self._runtime = import_onnxruntime("gpu")
        self._cuda = Cuda() if cuda is None else cuda
        self._bundle = bundle
        self._stream = self._cuda.stream()
        options = self._runtime.SessionOptions()
        vision, text = bundle.onnx("vision", self.precision), bundle.onnx("text", self.precision)
        providers = self.providers(kind, self._stream)
        try:
            self._vision = load_session(self._runtime, vision, providers, options) if bundle.sizes.pictures else None
            self._text = load_session(self._runtime, text, providers, options)
        except BaseException:
            self._cuda.destroy_stream(self._stream)
            raise
        self._run_options = self._runtime.RunOptions()
        # We wait for the stream ourselves, once a request.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._prefix_type = np.dtype(np.float16 if self.precision == "fp16" else np.float32)
        self._pool = PrefixPool(self._cuda, int(np.prod(bundle.sizes.prefix_shape)) * self._prefix_type.itemsize)
        self._device: dict[str, tuple[Address, int]] = {}
        self._pinned: dict[str, tuple[Pinned, int]] = {}
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

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        with self._lock:
            if self._vision is None:
                raise BackendError(no_pictures(self.name, closed=self._closed))
            binding = self._vision.io_binding()
            self._upload(binding, "images", images)
            prefix = self._bind_output(binding, "prefix", (len(images), *self._bundle.sizes.prefix_shape))
            self._run(self._vision, binding)
            return self._pool.store(prefix, len(images), self._stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        with self._lock:
            if self._text is None:
                raise BackendError(f"the backend {self.name} is closed")
            binding = self._text.io_binding()
            for name, array in text.arrays().items():
                self._upload(binding, name, array)
            if self._vision is not None:
                self._bind_prefixes(binding, [cast("list[DevicePrefix]", list(row)) for row in prefixes])
            labels = len(self._bundle.labels)
            batch, length = text.input_ids.shape
            ner = self._bundle.task == "ner"
            name, shape = ("emissions", (batch, length, labels)) if ner else ("logits", (batch, labels))
            output = self._bind_output(binding, name, shape, np.dtype(np.float32))
            self._run(self._text, binding)
            pinned = self._staging(name, shape, np.dtype(np.float32))
            self._cuda.copy(pinned.address, output, int(np.prod(shape)) * 4, self._stream)
            self._cuda.synchronize(self._stream)
            self._reading.clear()
            return _view(pinned, shape, np.dtype(np.float32)).copy()

    def close(self) -> None:
        """See `Backend`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._cuda.synchronize(self._stream)
            self._vision = self._text = None
            self._pool.close()
            for address, _ in self._device.values():
                self._cuda.free(address)
            for pinned, _ in self._pinned.values():
                self._cuda.free_host(pinned)
            self._device, self._pinned = {}, {}
            self._cuda.destroy_stream(self._stream)

    def _bind_prefixes(self, binding: Any, rows: list[list[DevicePrefix]]) -> None:  # noqa: ANN401
        shape = (len(rows), self._bundle.sizes.pictures, *self._bundle.sizes.prefix_shape)
        address = self._memory("gathered", int(np.prod(shape)) * self._prefix_type.itemsize)
        self._pool.gather(address, [prefix for row in rows for prefix in row], self._stream)
        binding.bind_input("prefix", self.device_type, 0, self._prefix_type, shape, address)

    def _upload(self, binding: Any, name: str, array: Array) -> None:  # noqa: ANN401
        pinned = self._staging(name, array.shape, array.dtype)
        _view(pinned, array.shape, array.dtype)[...] = array
        address = self._memory(name, array.nbytes)
        self._cuda.copy(address, pinned.address, array.nbytes, self._stream)
        self._reading.add(name)
        binding.bind_input(name, self.device_type, 0, array.dtype, array.shape, address)

    def _bind_output(
        self,
        binding: Any,  # noqa: ANN401
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any] | None = None,
    ) -> Address:
        dtype = self._prefix_type if dtype is None else dtype
        address = self._memory(name, int(np.prod(shape)) * dtype.itemsize)
        binding.bind_output(name, self.device_type, 0, dtype, shape, address)
        return address

    def _run(self, session: Any, binding: Any) -> None:  # noqa: ANN401
        try:
            session.run_with_iobinding(binding, self._run_options)
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

    def _staging(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pinned:
        """Pinned memory kept under a name, which grows; what a request still under way reads is waited for."""
        size = int(np.prod(shape)) * dtype.itemsize
        pinned, held = self._pinned.get(name, (None, -1))
        if name in self._reading:
            self._cuda.synchronize(self._stream)
            self._reading.clear()
        if pinned is None or held < size:
            if pinned is not None:
                self._cuda.free_host(pinned)
            pinned = self._cuda.malloc_host((size,), np.uint8)
            self._pinned[name] = pinned, size
        return pinned


def _view(pinned: Pinned, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape)) * dtype.itemsize
    found: Array = pinned.array[:size].view(dtype).reshape(shape)
    return found
