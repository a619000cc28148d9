"""NVIDIA's libraries that ONNX Runtime's GPU providers need, loaded before the first session looks for them.

They stand where pip put them, beside ONNX Runtime or in another folder of packages (PyTorch brings the same ones), and
the system's loader does not look there. It takes what is loaded already by name.
"""

import ctypes
import importlib.util
import logging
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from hvpnet_runtime.errors import BackendError

_log = logging.getLogger(__name__)

_CUDA_LIBRARIES = ("cudart", "nvrtc", "nvJitLink", "curand", "cufft", "cublasLt", "cublas", "cudnn")
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")


@cache
def load_cuda_libraries(runtime: Any) -> tuple[str, ...]:  # noqa: ANN401  onnxruntime has no types
    """Load CUDA's libraries and cuDNN, once, without PyTorch.

    Args:
        runtime: ONNX Runtime's module; it knows the versions it needs.

    Returns:
        A line about each that it needs and that was not found.
    """
    _load_from_any_folder()
    said: list[str] = []
    _without_printing(runtime.preload_dlls, said)()
    lines = tuple(line for line in said if line.startswith("Failed to load"))
    for line in lines:
        _log.info("%s", line)
    return lines


def _without_printing(function: FunctionType, said: list[str]) -> FunctionType:
    """A function whose own prints go to a list; those of other threads stay on standard output, where results go."""
    names = function.__globals__ | {"print": lambda *words: said.append(" ".join(map(str, words)))}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


@cache
def _load_from_any_folder() -> None:
    """ONNX Runtime looks beside itself only."""
    from cuda import pathfinder

    for name in _CUDA_LIBRARIES:
        with suppress(RuntimeError, ValueError):  # not found, or unknown to an older pathfinder: ONNX Runtime tells
            found = pathfinder.load_nvidia_dynamic_lib(name)
            _log.debug("%s is %s", name, found.abs_path)


@cache
def load_tensorrt_10() -> None:
    """Load the TensorRT libraries that ONNX Runtime's provider was built with.

    Raises:
        BackendError: they are not installed.
    """
    if sys.platform == "win32":  # there the provider finds them on the PATH, or says that it did not load
        return
    package = importlib.util.find_spec("tensorrt_libs")  # of the packages tensorrt-cu12-libs and tensorrt-cu13-libs
    folders = [Path(folder) for folder in (package and package.submodule_search_locations) or ()]
    for name in _TENSORRT_LIBRARIES:
        beside = [folder / name for folder in folders if (folder / name).exists()]
        try:
            ctypes.CDLL(str(beside[0]) if beside else name, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise BackendError(
                f"onnxruntime-tensorrt needs TensorRT 10, and {name} does not load ({error}): pip install"
                " 'hvpnet[gpu-tensorrt]' in an environment without TensorRT 11"
            ) from error
