"""The bundle's ONNX graphs in ONNX Runtime on a GPU, through its CUDA or TensorRT provider.

ONNX Runtime can record CUDA graphs itself, but one for every thread that calls it, and in a mode in which an allocation
of any other thread breaks the recording. Executors capture its runs instead, as they do TensorRT's: on an H100 that
makes one text of bert-base with four pictures three times as fast as launching its kernels one by one.
"""

import logging
from contextlib import ExitStack
from typing import Any

from hvpnet_runtime.backends.cuda import Cuda, Stream
from hvpnet_runtime.backends.device_backend import DeviceBackend
from hvpnet_runtime.backends.gpu_libraries import load_cuda_libraries, load_tensorrt_10
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.lane import Lane
from hvpnet_runtime.backends.onnxruntime import Providers, load_grounder, load_session, require_provider
from hvpnet_runtime.backends.onnxruntime_engine import RECORD_ASSIGNMENT, OnnxRuntime, SessionEngine, Sessions
from hvpnet_runtime.backends.onnxruntime_options import (
    EXTRAS,
    PROVIDERS,
    Kind,
    cuda_options,
    provider_cache,
    session_profiles,
    tensorrt_options,
)
from hvpnet_runtime.bundle import Bundle, GraphSpec
from hvpnet_runtime.errors import BackendError

_log = logging.getLogger(__name__)


def load_libraries(runtime: Any, kind: Kind) -> tuple[str, ...]:  # noqa: ANN401  onnxruntime has no types
    """Load what a provider needs beside ONNX Runtime: a line about each library of CUDA that is not found.

    Raises:
        BackendError: TensorRT 10 is not installed, and the provider needs it.
    """
    missing = load_cuda_libraries(runtime)
    if kind == "onnxruntime-tensorrt":
        load_tensorrt_10()
    return missing


class OnnxRuntimeGpuBackend(DeviceBackend):
    """See `Backend` and `DeviceBackend`. Requests of several threads are on the device one after the other.

    Args:
        bundle: a checked bundle.
        kind: which provider.
        precision: `fp16` or `fp32`; by default FP16 where the bundle has it.
        cuda_graphs: whether to launch CUDA graphs of the CUDA provider's runs, or kernels one by one, as the TensorRT
            provider always does.
        cuda: the device; by default the first.

    Raises:
        MissingExtraError: ONNX Runtime or cuda-bindings is not installed.
        BundleError: the bundle does not have the precision, or it is INT8, whose graphs are for CPUs and the engines of
            `hvpnet build`; or a graph is of another model.
        BackendError: there is no GPU, or the provider is not in this build or does not load.
    """

    device_type = "cuda"
    longer_texts = "export the checkpoint again for longer texts (hvpnet export --max-length)"
    lanes = 2  # one is queued while the other's answers are read

    def __init__(
        self,
        bundle: Bundle,
        kind: Kind,
        precision: str | None = None,
        *,
        cuda_graphs: bool = True,
        cuda: Cuda | None = None,
    ) -> None:
        self._kind, self._chosen = kind, bundle.prefer("fp16", "fp32", wanted=precision)
        self._runtime = require_provider(PROVIDERS[kind], EXTRAS[kind])
        cuda = Cuda(extra=EXTRAS[kind]) if cuda is None else cuda
        self._missing = load_libraries(self._runtime, kind)
        limit, specs = bundle.manifest.limits.max_length, bundle.specs(self._chosen)
        super().__init__(kind, bundle, self._chosen, session_profiles(specs, limit), cuda)
        captured = cuda_graphs and kind == "onnxruntime-cuda"
        api, sessions = OnnxRuntime(kind, self._runtime, self.device_type, cuda.ordinal), Sessions()
        cuda.use()
        with ExitStack() as held:
            stream = cuda.stream()
            held.callback(cuda.destroy_stream, stream)  # after the sessions, whose handles it is bound to
            held.callback(self._clear, sessions)
            for graph, spec in self._specs.items():
                engine = sessions[graph] = SessionEngine(self._load(spec, self.providers(spec, stream)), spec)
                if captured and (left := engine.on_cpu()):
                    _log.warning("%s runs %s of %s.onnx on the CPU, and captures no CUDA graph", kind, left, graph)
            self._open(held, [Lane(cuda, api, sessions, cuda_graphs=captured, stream=stream)])

    def providers(self, spec: GraphSpec, stream: Stream) -> Providers:
        """ONNX Runtime's providers of a graph, the one that must load first, and their options."""
        precision, ordinal = self.precision, self._cuda.ordinal
        if self._kind == "onnxruntime-cuda":
            narrow_vision = spec.name == "vision" and precision == "fp16"
            return cuda_options(precision, ordinal, stream, channels_last=narrow_vision)
        folder = provider_cache(self._bundle, self._runtime.__version__, self._chosen)
        return tensorrt_options(spec, precision, ordinal, stream, folder, self._bundle.manifest.limits.max_length)

    def grounder_providers(self, precision: str) -> Providers:
        """The providers of the grounder: CUDA's, for TensorRT would build for minutes."""
        return cuda_options(precision, self._cuda.ordinal)

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. It runs on the CUDA provider."""
        self._require_open()
        options, providers = self._runtime.SessionOptions(), self.grounder_providers(self.precision)
        with self._cuda.exclusive():
            return load_grounder(
                self._runtime, self._bundle, self.name, self.precision, providers, options, few_shapes=True
            )

    def _clear(self, sessions: Sessions) -> None:
        with self._cuda.exclusive():  # the device may wait
            sessions.clear()

    def _load(self, spec: GraphSpec, providers: Providers) -> Any:  # noqa: ANN401
        graph, options = spec.name, self._runtime.SessionOptions()
        options.add_session_config_entry(*RECORD_ASSIGNMENT)
        file, content = self._bundle.onnx(graph, self._chosen), self._bundle.graph(graph, self._chosen)
        try:
            with self._cuda.exclusive():  # it allocates
                return load_session(self._runtime, file, content, spec, providers, options)
        except BackendError as error:
            if not self._missing:
                raise
            raise BackendError(f"{error}. {'; '.join(self._missing)}") from error
