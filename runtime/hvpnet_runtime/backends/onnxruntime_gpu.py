"""The bundle's ONNX graphs in ONNX Runtime on a GPU, through its CUDA or TensorRT provider.

Everything is bound to device memory of our own and queued on one stream of our own, so prefixes never visit the host
and the host waits once a request, for the emissions.

Kernels are launched one by one. ONNX Runtime can record them as a CUDA graph, but it records one for every thread that
calls it, at fixed addresses, and in a mode in which any allocation of another thread of the process (a second bundle's
backend, the grounder) breaks the recording: a service with many threads would record the same graphs many times, and
not safely. Who wants CUDA graphs has them with the TensorRT backends, whose executors are made for it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import (
    MAX_PICTURES,
    Array,
    Pixels,
    Prefix,
    TextInputs,
    WarmUpShape,
    no_pictures,
    run_shape,
)
from hvpnet_runtime.backends.cuda import Address, Cuda
from hvpnet_runtime.backends.device_buffers import DeviceBuffers
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.gpu_libraries import load_cuda_libraries, load_tensorrt_10
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.backends.onnxruntime import Providers, failure_of, load_grounder, load_session, require_provider
from hvpnet_runtime.backends.onnxruntime_options import (
    MOST_TEXTS,
    PROVIDERS,
    Kind,
    cuda_options,
    engine_folder,
    padded_pictures,
    padded_texts,
    tensorrt_options,
    text_lengths,
)
from hvpnet_runtime.bundle import Axis, Bundle, GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.processes import Origin


def load_libraries(runtime: Any, kind: Kind) -> tuple[str, ...]:  # noqa: ANN401  onnxruntime has no types
    """Load what a provider needs beside ONNX Runtime: a line about each library of CUDA that is not found.

    Raises:
        BackendError: TensorRT 10 is not installed, and the provider needs it.
    """
    missing = load_cuda_libraries(runtime)
    if kind == "onnxruntime-tensorrt":
        load_tensorrt_10()
    return missing


class OnnxRuntimeGpuBackend:
    """See `Backend`. Prefixes are `DevicePrefix`. Requests of several threads are on the device one after the other.

    Pictures are padded to a power of two; with the TensorRT provider texts too, and to a few lengths. A batch that the
    device's memory does not suffice for is run in halves.

    Args:
        bundle: a checked bundle.
        kind: which provider.
        precision: `fp16` or `fp32`; by default FP16 where the bundle has it.
        cuda: the device; by default the first.

    Raises:
        MissingExtraError: ONNX Runtime or cuda-bindings is not installed.
        BundleError: the bundle does not have the precision, or it is INT8, whose graphs are for CPUs; or a graph is of
            another model.
        BackendError: there is no GPU, or the provider is not in this build or does not load.
    """

    device_type = "cuda"
    lanes: int = 2
    max_length: int | None = None
    run_tokens: int | None = None

    def __init__(self, bundle: Bundle, kind: Kind, precision: str | None = None, *, cuda: Cuda | None = None) -> None:
        self.name: str = kind
        chosen = bundle.prefer("fp16", "fp32", wanted=precision)
        self.precision: str = chosen
        self._kind, self._chosen, self._origin = kind, chosen, Origin()
        self._runtime = require_provider(PROVIDERS[kind], "gpu")
        self._cuda = Cuda() if cuda is None else cuda
        self._missing = load_libraries(self._runtime, kind)
        self._bundle, self._specs = bundle, bundle.specs(chosen)
        self._longest = bundle.manifest.limits.max_length
        self._halving, self._lock, self._closed = Halving(kind), Lock(), False
        with ExitStack() as undo:
            self._stream = self._cuda.stream()
            undo.callback(self._cuda.destroy_stream, self._stream)
            self._buffers = DeviceBuffers(self._cuda, self._stream)
            self._sessions = {graph: self._load(spec, self.providers(spec)) for graph, spec in self._specs.items()}
            undo.pop_all()
        self._run_options = self._runtime.RunOptions()
        # We wait for the stream ourselves, once a request.
        self._run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._pool: PrefixPool | None = None
        if "vision" in self._specs:
            self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))

    def providers(self, spec: GraphSpec) -> Providers:
        """ONNX Runtime's providers of a graph, the one that must load first, and their options."""
        precision, ordinal = self.precision, self._cuda.ordinal
        if self._kind == "onnxruntime-cuda":
            return cuda_options(precision, ordinal, self._stream)
        folder = engine_folder(self._bundle, self._runtime.__version__, self._chosen)
        return tensorrt_options(spec, precision, ordinal, self._stream, folder, self._longest)

    def grounder_providers(self, precision: str) -> Providers:
        """The providers of the grounder: CUDA's, for TensorRT would build for minutes."""
        return cuda_options(precision, self._cuda.ordinal)

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        with self._lock:
            pool = self._prefix_pool()
            parts = self._halving.run(
                "pictures", len(pixels), MAX_PICTURES, lambda rows: self._encode_pictures(pool, pixels[rows])
            )
            return [prefix for part in parts for prefix in part]

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        with self._lock:
            return self._prefix_pool().place(prefix.astype(self._specs["vision"].output.dtype), self._stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        with self._lock:
            self._check_open()
            count, length = text.input_ids.shape
            outputs = self._halving.run(
                ("texts", padded_texts(1, length, self._longest)[1]),
                count,
                count if self._kind == "onnxruntime-cuda" else MOST_TEXTS,
                lambda rows: self._encode_text(text.rows(rows), prefixes[rows]),
            )
            return np.concatenate(outputs)

    def warm_up(self, shapes: Sequence[WarmUpShape]) -> None:
        """See `Backend`. The TensorRT provider builds its engines here, for minutes, unless the bundle has them."""
        pictures = [1 << power for power in range(MAX_PICTURES.bit_length())]
        every = [WarmUpShape(0, 0, count) for count in pictures]
        every += [WarmUpShape(1, length, 0) for length in text_lengths(self._longest)]
        for shape in shapes or every:
            run_shape(self, self._bundle, shape)

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. It runs on the CUDA provider."""
        self._check_open()
        options, providers = self._runtime.SessionOptions(), self.grounder_providers(self.precision)
        return load_grounder(
            self._runtime, self._bundle, self.name, self.precision, providers, options, few_shapes=True
        )

    def close(self) -> None:
        """See `Backend`."""
        if not self._origin.is_here:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._buffers.synchronize()
            self._sessions = {}
            if self._pool is not None:
                self._pool.close()
            self._buffers.close()
            self._cuda.destroy_stream(self._stream)

    def _load(self, spec: GraphSpec, providers: Providers) -> Any:  # noqa: ANN401
        graph, options = spec.name, self._runtime.SessionOptions()
        file, content = self._bundle.onnx(graph, self._chosen), self._bundle.graph(graph, self._chosen)
        try:
            return load_session(self._runtime, file, content, spec, providers, options)
        except BackendError as error:
            if not self._missing:
                raise
            raise BackendError(f"{error}. {'; '.join(self._missing)}") from error

    def _check_open(self) -> None:
        self._origin.check()
        if self._closed:
            raise BackendError(f"the backend {self.name} is closed")

    def _prefix_pool(self) -> PrefixPool:
        self._origin.check()
        if self._closed or self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        return self._pool

    def _encode_pictures(self, pool: PrefixPool, pixels: Pixels) -> list[DevicePrefix]:
        count, binding = padded_pictures(len(pixels)), self._sessions["vision"].io_binding()
        self._bind_input(binding, "images", pixels, (count, *pixels.shape[1:]))
        prefix, _ = self._bind_output(binding, "vision", {"pictures": count})
        self._run("vision", binding)
        return pool.store(prefix, len(pixels), self._stream)

    def _encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        batch, length = text.input_ids.shape
        rows, pieces = batch, length
        if self._kind == "onnxruntime-tensorrt":
            rows, pieces = padded_texts(batch, length, self._longest)
        shapes = self._specs["text"].input_shapes(rows, pieces)
        binding = self._sessions["text"].io_binding()
        for name, array in text.arrays().items():
            self._bind_input(binding, name, array, shapes[name])
        if self._pool is not None:
            self._bind_prefixes(binding, self._pool, prefixes, shapes["prefix"])
        output, shape = self._bind_output(binding, "text", {"batch": rows, "length": pieces})
        self._run("text", binding)
        spec = self._specs["text"].output
        found = self._buffers.download(spec.name, output, shape, spec.dtype)
        kept = spec.shape({"batch": batch, "length": length})
        return np.array(found[tuple(map(slice, kept))], np.float32)  # [B, T, labels] or [B, relations]

    def _bind_prefixes(
        self,
        binding: Any,  # noqa: ANN401
        pool: PrefixPool,
        prefixes: Sequence[Sequence[Prefix]],
        shape: tuple[int, ...],
    ) -> None:
        """Gather the texts' prefixes: [rows, pictures, layers, 2, P * hidden]; what pads them is whatever was there."""
        gathered = cast("list[DevicePrefix]", [prefix for row in prefixes for prefix in row])
        address = self._buffers.device("gathered", shape[0] * shape[1] * pool.nbytes)
        pool.gather(address, gathered, self._stream)
        (spec,) = (tensor for tensor in self._specs["text"].inputs if tensor.name == "prefix")
        binding.bind_input(spec.name, self.device_type, self._cuda.ordinal, spec.dtype, shape, address)

    def _bind_input(
        self,
        binding: Any,  # noqa: ANN401
        name: str,
        array: Array,
        shape: tuple[int, ...],
    ) -> None:
        address = self._buffers.upload(name, array, shape)
        binding.bind_input(name, self.device_type, self._cuda.ordinal, array.dtype, shape, address)

    def _bind_output(
        self,
        binding: Any,  # noqa: ANN401
        graph: GraphName,
        sizes: Mapping[Axis, int],
    ) -> tuple[Address, tuple[int, ...]]:
        spec = self._specs[graph].output
        address, shape = self._buffers.device(spec.name, spec.nbytes(sizes)), spec.shape(sizes)
        binding.bind_output(spec.name, self.device_type, self._cuda.ordinal, spec.dtype, shape, address)
        return address, shape

    def _run(self, graph: GraphName, binding: Any) -> None:  # noqa: ANN401
        try:
            self._sessions[graph].run_with_iobinding(binding, self._run_options)
        except Exception as error:  # its exception classes are private to the extension
            raise failure_of(self.name, error) from error
