"""What runs the graphs of a bundle."""

import logging
from collections.abc import Callable

from hvpnet_runtime.backends.base import Backend, BundleBackend, Prefix, TextInputs, WarmUpShape
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.gpu_libraries import load_tensorrt_10
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.onnxruntime import CPU, OnnxRuntimeBackend, require_provider
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.backends.openvino import OpenVinoBackend, import_openvino
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.backends.tensorrt.library import load_library
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, BundleError, HvpnetError, StaleEngineError, brief

__all__ = [
    "AUTO",
    "BACKENDS",
    "CPU_BACKENDS",
    "Backend",
    "BundleBackend",
    "Grounder",
    "Prefix",
    "TextInputs",
    "WarmUpShape",
    "available_backends",
    "load_backend",
]

_log = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[[Bundle, int | None, str | None], BundleBackend]] = {
    "tensorrt": lambda bundle, _, __: TensorRTBackend(bundle, "tensorrt"),  # the engine has its precision
    "tensorrt-rtx": lambda bundle, _, __: TensorRTBackend(bundle, "tensorrt-rtx"),
    "onnxruntime-tensorrt": lambda bundle, _, wanted: OnnxRuntimeGpuBackend(bundle, "onnxruntime-tensorrt", wanted),
    "onnxruntime-cuda": lambda bundle, _, wanted: OnnxRuntimeGpuBackend(bundle, "onnxruntime-cuda", wanted),
    "onnxruntime-cpu": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}
"""What makes a backend of a bundle, CPU threads and the precision wanted, by name."""

CPU_BACKENDS = ("onnxruntime-cpu", "openvino")
"""Backends that leave a GPU alone."""

AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu")
"""What `auto` tries, in this order. ONNX Runtime's TensorRT provider is not among them: it builds at the first request,
for minutes; nor is OpenVINO, which has shown to be faster on one processor only."""

_PROBES: dict[str, Callable[[], object]] = {
    "tensorrt": lambda: (load_library("tensorrt"), Cuda()),
    "tensorrt-rtx": lambda: (load_library("tensorrt-rtx"), Cuda()),
    "onnxruntime-tensorrt": lambda: (require_provider("TensorrtExecutionProvider", "gpu"), Cuda(), load_tensorrt_10()),
    "onnxruntime-cuda": lambda: (require_provider("CUDAExecutionProvider", "gpu"), Cuda()),
    "onnxruntime-cpu": lambda: require_provider(CPU, "cpu"),
    "openvino": import_openvino,
}
"""What raises where a backend cannot run, by name."""


def available_backends() -> dict[str, str | None]:
    """Which backends can run on this machine, whatever the bundle.

    Returns:
        None for a backend that can run here, else the reason why it cannot, by name in the order of `BACKENDS`.
    """
    found: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            _PROBES[name]()
        except HvpnetError as error:
            found[name] = str(error)
        else:
            found[name] = None
    return found


def load_backend(
    bundle: Bundle, name: str = "auto", threads: int | None = None, precision: str | None = None
) -> BundleBackend:
    """Load the graphs of a bundle.

    Args:
        bundle: a checked bundle.
        name: one of `BACKENDS`, or `auto`: the first of `AUTO` that loads. What `auto` passes over, and why, is
            logged; as a warning where a built engine is stale.
        threads: CPU threads of one call; by default all cores.
        precision: of the graphs to run; by default what is fastest on the backend without loss of accuracy, FP32 on a
            CPU and FP16 on a GPU, where the bundle has it.

    Raises:
        BackendError: the name is unknown, the backend does not run here, or its engine has another precision.
        BundleError: the bundle does not have the precision, or the backend does not run it; or a graph is damaged or of
            another model.
        MissingExtraError: its package is not installed.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(f"there is no backend {brief(name)}: choose auto, {', '.join(BACKENDS)}")
        return _load(bundle, name, threads, precision)
    reasons: list[HvpnetError] = []
    for candidate in AUTO:
        try:
            backend = _load(bundle, candidate, threads, precision)
        except HvpnetError as error:
            level = logging.WARNING if isinstance(error, StaleEngineError) else logging.INFO
            _log.log(level, "backend %s passed over: %s", candidate, error)
            reasons.append(error)
        else:
            _log.info("backend %s loaded", backend.name)
            return backend
    if isinstance(reasons[-1], BundleError):  # the last of them runs everywhere: it is the bundle that is wrong
        raise reasons[-1]
    raise BackendError(f"no backend runs here: {'; '.join(map(str, reasons))}") from reasons[-1]


def _load(bundle: Bundle, name: str, threads: int | None, precision: str | None) -> BundleBackend:
    backend = BACKENDS[name](bundle, threads, precision)
    if precision is not None and backend.precision != precision:
        backend.close()
        raise BackendError(
            f"the engines of {name} are {backend.precision}: build {precision} ones, or ask for no precision"
        )
    return backend
