"""The bundle's ONNX graphs in OpenVINO on the CPU."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Array, HostBackend
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName
from hvpnet_runtime.errors import BackendError, BundleError, MissingExtraError
from hvpnet_runtime.processes import never_free_in_forks


class OpenVinoBackend(HostBackend):
    """See `Backend`. Prefixes are numpy arrays. Requests of several threads take turns at each graph.

    Args:
        bundle: a checked bundle.
        threads: CPU threads of one call; by default all cores.
        precision: `fp32` or `int8`, by default the first that the bundle has; or `bf16`: the FP32 graphs with their
            products rounded to bfloat16.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BundleError: the bundle does not have the precision, or a graph is damaged or of another model.
        BackendError: the processor does not compute in bfloat16.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, precision: str | None = None) -> None:
        core = import_openvino().Core()
        bf16 = precision == "bf16"
        graphs = bundle.prefer("fp32", "int8", wanted="fp32" if bf16 else precision)
        super().__init__("openvino", bundle, graphs)
        if bf16:
            self.precision = "bf16"
            if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                raise BackendError("this processor does not compute in bfloat16: choose fp32 or int8")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",  # by default what the CPU has
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        for graph, spec in self._specs.items():
            file = bundle.onnx(graph, graphs)
            try:
                compiled = core.compile_model(core.read_model(bundle.graph(graph, graphs)), "CPU", settings)
                request = compiled.create_infer_request()
            except RuntimeError as error:
                raise BundleError(
                    f"OpenVINO cannot load {file}: {_last_line(error)}; export it again, or upgrade openvino"
                ) from error
            spec.check(file, map(_found, compiled.inputs), map(_found, compiled.outputs))
            never_free_in_forks(compiled)
            never_free_in_forks(request)
            self._sessions[graph] = request, Lock()  # a request runs once at a time

    def _run(self, graph: GraphName, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        request, lock = self._sessions[graph]
        with lock:
            try:
                output: npt.NDArray[np.float32] = request.infer(dict(feeds), share_inputs=True)[0].copy()
            except RuntimeError as error:
                raise BackendError(f"openvino failed: {_last_line(error)}") from error
        return output


def _found(port: Any) -> FoundTensor:  # noqa: ANN401
    axes = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return FoundTensor(port.any_name, port.element_type.to_dtype().name, axes)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["it gives no reason"])[-1]


def import_openvino() -> Any:  # noqa: ANN401  openvino has no types
    """The module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "the backend openvino") from error
    return openvino
