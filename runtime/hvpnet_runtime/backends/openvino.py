"""The bundle's ONNX graphs in OpenVINO on the CPU."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Array, HostBackend
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName, GraphSpec
from hvpnet_runtime.bundle.grounder_spec import remake
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
        self._core, self._settings = core, {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = str(threads)
        hint = "bf16" if bf16 else "f32"  # by default what the CPU has
        self._sessions = {graph: self._load(graph, graphs, spec, hint) for graph, spec in self._specs.items()}

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. It is computed in float32 where the other graphs are in bfloat16."""
        specs, chosen = self._bundle.grounder_specs(), self._bundle.grounder.prefer(self.precision)
        requests = {graph: self._load(graph, chosen, spec, "f32") for graph, spec in specs.items()}

        def run(graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
            return requests[graph].run(feeds)

        return Grounder(self.name, chosen, specs, run)

    def _load(self, graph: GraphName, precision: str, spec: GraphSpec, hint: str) -> "_Request":
        file, settings = self._bundle.onnx(graph, precision), self._settings | {"INFERENCE_PRECISION_HINT": hint}
        content = self._bundle.graph(graph, precision)
        try:
            compiled = self._core.compile_model(self._core.read_model(content), "CPU", settings)
            request = compiled.create_infer_request()
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO cannot load {file}: {_last_line(error)}; {remake(spec.name)}, or upgrade openvino"
            ) from error
        spec.check(file, map(_found, compiled.inputs), map(_found, compiled.outputs))
        never_free_in_forks(compiled)
        never_free_in_forks(request)
        return _Request(request, tuple(output.name for output in spec.outputs))

    def _run(self, graph: GraphName, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32]
        (output,) = self._sessions[graph].run(feeds)
        return output


class _Request:
    """A loaded graph, which runs once at a time.

    Args:
        request: of OpenVINO.
        outputs: names of what it answers, in the order wanted.
    """

    def __init__(self, request: Any, outputs: tuple[str, ...]) -> None:  # noqa: ANN401  openvino has no types
        self._request, self._outputs, self._lock = request, outputs, Lock()

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs.

        Raises:
            BackendError: it failed.
        """
        with self._lock:
            try:
                answer = self._request.infer(dict(feeds), share_inputs=True)
                return [answer[name].copy() for name in self._outputs]
            except RuntimeError as error:
                raise BackendError(f"openvino failed: {_last_line(error)}") from error


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
