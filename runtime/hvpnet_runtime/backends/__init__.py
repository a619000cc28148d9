"""What runs the graphs of a bundle."""

import logging
from collections.abc import Callable

from hvpnet_runtime.backends.base import Backend, BundleBackend, Prefix, TextInputs, WarmUpShape
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.gpu_libraries import load_tensorrt_10
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.nvidia import sees_nvidia_gpu
from hvpnet_runtime.backends.onnxruntime import CPU, OnnxRuntimeBackend, require_provider
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.backends.openvino import OpenVinoBackend, import_openvino
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.backends.tensorrt.library import load_library
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, BundleError, HvpnetError, InputError, StaleEngineError, brief

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
    "check_device",
    "load_backend",
]

_log = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[[Bundle, int | None, str | None, int | None], BundleBackend]] = {
    "tensorrt": lambda bundle, _, wanted, device: TensorRTBackend(
        bundle, "tensorrt", wanted, cuda=_gpu(device, "tensorrt")
    ),
    "tensorrt-rtx": lambda bundle, _, wanted, device: TensorRTBackend(
        bundle, "tensorrt-rtx", wanted, cuda=_gpu(device, "tensorrt-rtx")
    ),
    "onnxruntime-tensorrt": lambda bundle, _, wanted, device: OnnxRuntimeGpuBackend(
        bundle, "onnxruntime-tensorrt", wanted, cuda=_gpu(device, "gpu-tensorrt")
    ),
    "onnxruntime-cuda": lambda bundle, _, wanted, device: OnnxRuntimeGpuBackend(
        bundle, "onnxruntime-cuda", wanted, cuda=_gpu(device, "gpu")
    ),
    "onnxruntime-cpu": lambda bundle, threads, wanted, _: OnnxRuntimeBackend(bundle, threads, wanted),
    "openvino": lambda bundle, threads, wanted, _: OpenVinoBackend(bundle, threads, wanted),
}
"""What makes a backend of a bundle, CPU threads, the precision wanted and a GPU's number, by name. GPU
backends need no threads, and CPU backends no GPU."""

CPU_BACKENDS = ("onnxruntime-cpu", "openvino")
"""Backends that leave a GPU alone."""

AUTO = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-cpu")
"""What `auto` tries, in this order. ONNX Runtime's TensorRT provider is not among them: it builds as it is loaded,
for minutes; nor is OpenVINO, which has shown to be faster on one processor only."""

_PROBES: dict[str, Callable[[], object]] = {
    "tensorrt": lambda: (load_library("tensorrt"), Cuda(extra="tensorrt")),
    "tensorrt-rtx": lambda: (load_library("tensorrt-rtx"), Cuda(extra="tensorrt-rtx")),
    "onnxruntime-tensorrt": lambda: (
        require_provider("TensorrtExecutionProvider", "gpu-tensorrt"),
        Cuda(extra="gpu-tensorrt"),
        load_tensorrt_10(),
    ),
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
    bundle: Bundle,
    name: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    device: int | None = None,
) -> BundleBackend:
    """Load the graphs of a bundle.

    Args:
        bundle: a checked bundle.
        name: one of `BACKENDS`, or `auto`: the first of `AUTO` that loads. What `auto` passes over, and why, is
            logged; as a warning where a built engine is stale, or where an NVIDIA GPU is here.
        threads: CPU threads of one call; by default all cores.
        precision: of the graphs to run; by default what is fastest on the backend without loss of accuracy, FP32 on a
            CPU and FP16 on a GPU, where the bundle has it; of TensorRT's engines FP16, or else FP32.
        device: number of the GPU among those that this process may use, from 0; by default the first. If it is given,
            `auto` loads no backend of the CPU.

    Raises:
        InputError: a GPU is chosen for a backend that runs on the CPU.
        BackendError: the name is unknown, the backend does not run here, there is no such GPU, or no engine of this
            precision was built.
        BundleError: the bundle does not have the precision, or the backend does not run it; or a graph is damaged or of
            another model.
        MissingExtraError: its package is not installed.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(f"there is no backend {brief(name)}: choose auto, {', '.join(BACKENDS)}")
        check_device(name, device)
        return BACKENDS[name](bundle, threads, precision, device)
    reasons: list[HvpnetError] = []
    gpu_is_here = sees_nvidia_gpu()
    for candidate in AUTO if device is None else [each for each in AUTO if each not in CPU_BACKENDS]:
        try:
            backend = BACKENDS[candidate](bundle, threads, precision, device)
        except HvpnetError as error:
            level = logging.WARNING if gpu_is_here or isinstance(error, StaleEngineError) else logging.INFO
            _log.log(level, "backend %s passed over: %s", candidate, error)
            reasons.append(error)
        else:
            if gpu_is_here and candidate in CPU_BACKENDS:
                _log.warning("an NVIDIA GPU is here, but no backend of a GPU loads: the CPU does all the work")
            _log.info("backend %s loaded", backend.name)
            return backend
    if device is None and isinstance(reasons[-1], BundleError):  # the CPU's, which runs everywhere: the bundle is wrong
        raise reasons[-1]
    where = "here" if device is None else f"on GPU {device}"
    raise BackendError(f"no backend runs {where}: {'; '.join(map(str, reasons))}") from reasons[-1]


def check_device(name: str, device: int | None) -> None:
    """Refuse a GPU for a backend, by its name, that would leave it alone.

    Raises:
        InputError: this is one.
    """
    if device is not None and name in CPU_BACKENDS:
        raise InputError(
            f"GPU {device} is chosen for the backend {name}, which runs on the CPU: choose only one of them"
        )


def _gpu(device: int | None, extra: str) -> Cuda | None:
    return None if device is None else Cuda(device, extra)
