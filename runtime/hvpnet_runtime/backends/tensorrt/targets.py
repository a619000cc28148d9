"""Which GPUs the engines of a library run on, by compute capability, and how a build is told."""

from collections.abc import Sequence
from typing import Any

from hvpnet_runtime.backends.cuda import Device
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.errors import BuildError

TURING = "7.5"
"""GPUs that TensorRT for RTX has no FP32 products for, and that hold back the engines they share with others."""


def supported(api: Library) -> tuple[str, ...]:
    """Compute capabilities that TensorRT for RTX has kernels for, as in `8.9`."""
    names = [name.removeprefix("SM") for name in api.trt.ComputeCapability.__members__ if name.startswith("SM")]
    return tuple(f"{name[:-1]}.{name[-1]}" for name in names)


def usual(api: Library) -> tuple[str, ...]:
    """Those that a portable engine is built for where nobody says: all but Turing, for which nothing may be FP32."""
    return tuple(gpu for gpu in supported(api) if gpu != TURING)


def listed(gpus: Sequence[str]) -> str:
    """`8.0, 8.6 and 8.9`."""
    *most, last = gpus
    return f"{', '.join(most)} and {last}" if most else last


def choose_targets(api: Library, asked: tuple[str, ...], device: Device | None) -> tuple[str, ...]:
    """Compute capabilities that engines are to be built for.

    Args:
        api: the library.
        asked: by the user; empty for the usual ones.
        device: the GPU that is here, the only one that TensorRT builds for.

    Raises:
        BuildError: the library has no kernels for one of them.
    """
    if not api.portable:
        return (device.compute_capability,) if device else ()
    unknown = [gpu for gpu in asked if gpu not in supported(api)]
    if unknown:
        raise BuildError(
            f"{api.engine} {api.version} builds for GPUs of compute capability {listed(supported(api))},"
            f" not for {listed(unknown)}"
        )
    return asked or usual(api)


def set_targets(api: Library, config: Any, gpus: tuple[str, ...]) -> None:  # noqa: ANN401  TensorRT has no types
    """Tell the builder configuration of a portable engine which GPUs it is for.

    Raises:
        BuildError: the library refuses one.
    """
    config.num_compute_capabilities = len(gpus)
    for index, gpu in enumerate(gpus):
        if not config.set_compute_capability(api.trt.ComputeCapability.__members__[f"SM{gpu.replace('.', '')}"], index):
            raise BuildError(f"{api.engine} {api.version} does not build for {gpu}: {api.last_error()}")
