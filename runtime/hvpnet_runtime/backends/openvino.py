"""The bundle's ONNX graphs in OpenVINO on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs, no_pictures, stack_prefixes
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, MissingExtraError

_GRAPHS = {"fp32": "fp32", "bf16": "fp32", "int8": "int8"}
"""Which graphs are run at a precision."""


class OpenVinoBackend:
    """See `Backend`. Prefixes are numpy arrays. Requests of several threads take turns at each graph.

    Args:
        bundle: a checked bundle.
        threads: CPU threads of one call; by default all cores.
        precision: `fp32` or `int8`, by default the first that the bundle has; or `bf16`: the FP32 graphs with their
            products rounded to bfloat16.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleError: the bundle does not have the precision.
        BackendError: a graph is damaged, or the processor does not compute in bfloat16.
    """

    name = "openvino"
    max_length: int | None = None

    def __init__(self, bundle: Bundle, threads: int | None = None, precision: str | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "the backend openvino") from error
        core = openvino.Core()
        self.precision = "bf16" if precision == "bf16" else bundle.prefer("fp32", "int8", wanted=precision)
        if self.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("this processor does not compute in bfloat16: choose fp32 or int8")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",  # by default what the CPU has
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        graphs = _GRAPHS[self.precision]
        text = bundle.onnx("text", graphs)
        vision = bundle.onnx("vision", graphs) if bundle.sizes.pictures else None
        self._vision = None if vision is None else _Graph(core, vision, settings)
        self._text: _Graph | None = _Graph(core, text, settings)

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`."""
        if self._vision is None:
            raise BackendError(no_pictures(self.name, closed=self._text is None))
        prefixes = self._vision({"images": images})  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        if self._text is None:
            raise BackendError("the backend openvino is closed")
        feeds: dict[str, Any] = text.arrays()
        if self._vision is not None:
            feeds["prefix"] = stack_prefixes(prefixes)
        return self._text(feeds)

    def close(self) -> None:
        """See `Backend`."""
        self._vision = self._text = None


class _Graph:
    """A compiled graph with one output, run by one thread at a time."""

    def __init__(self, core: Any, path: Path, settings: Mapping[str, str]) -> None:  # noqa: ANN401
        try:
            self._request = core.compile_model(str(path), "CPU", dict(settings)).create_infer_request()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {path}: {str(error).strip().splitlines()[-1]}") from error
        self._lock = Lock()

    def __call__(self, feeds: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        with self._lock:
            try:
                output: npt.NDArray[np.float32] = self._request.infer(dict(feeds), share_inputs=True)[0].copy()
            except RuntimeError as error:
                raise BackendError(f"openvino failed: {str(error).strip().splitlines()[-1]}") from error
        return output
