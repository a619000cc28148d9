"""Engines that run the two graphs of a bundle."""

import logging
from collections.abc import Callable

from hvpnet_runtime.backends.base import Backend, Prefix, TextInputs
from hvpnet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, HvpnetError

__all__ = ["BACKENDS", "Backend", "Prefix", "TextInputs", "load_backend"]

_log = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[[Bundle, int | None], Backend]] = {
    "onnxruntime-cuda": lambda bundle, threads: OnnxRuntimeBackend(bundle, "CUDAExecutionProvider", threads),
    "onnxruntime-cpu": lambda bundle, threads: OnnxRuntimeBackend(bundle, "CPUExecutionProvider", threads),
}
"""By name, fastest first: the order in which `auto` tries them."""


def load_backend(bundle: Bundle, name: str = "auto", threads: int | None = None) -> Backend:
    """Load the graphs of a bundle.

    Args:
        bundle: a checked bundle.
        name: one of `BACKENDS`, or `auto`: the fastest that runs here. What `auto` passes over, and why, is logged.
        threads: CPU threads of one call; by default all cores.

    Raises:
        BackendError: the name is unknown, or the backend does not run here.
        MissingExtraError: its package is not installed.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(f"there is no backend {name!r}: choose auto, {', '.join(BACKENDS)}")
        return BACKENDS[name](bundle, threads)
    reasons: list[HvpnetError] = []
    for candidate, load in BACKENDS.items():
        try:
            backend = load(bundle, threads)
        except HvpnetError as error:
            _log.info("backend %s passed over: %s", candidate, error)
            reasons.append(error)
        else:
            _log.info("backend %s loaded", backend.name)
            return backend
    raise BackendError(f"no backend runs here: {'; '.join(map(str, reasons))}") from reasons[-1]
