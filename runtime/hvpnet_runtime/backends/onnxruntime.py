"""The bundle's ONNX graphs in ONNX Runtime on the CPU, and how a session of any provider is made."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Array, HostBackend, power_of_two
from hvpnet_runtime.backends.grounder import MAX_GROUNDED, Grounder
from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName, GraphSpec
from hvpnet_runtime.bundle.grounder_spec import remake
from hvpnet_runtime.errors import BackendError, BundleError, DeviceMemoryError, MissingExtraError
from hvpnet_runtime.processes import never_free_in_forks

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime would report its use to its makers, from a thread that it starts as it is imported and that a forked
process waits for as it ends, for ever. The environment says whether it does; its own call leaves the thread running."""

_SPIN_WITHIN_RUNS = ("session.force_spinning_stop", "1")
"""Threads spin for work within a run, not after it: there they would take the cores from the other graph, whose session
has threads of its own, and from the decoding of pictures. INT8 vision and text one after the other, on two cores: 41 ms
instead of 50."""

_ROUND_ALONE = ("session.disable_quant_qdq", "1")
"""Numbers are rounded to INT8 and multiplied in FP32, which is right on every processor: kernels for two signed factors
add up in 16 bits where there is no VNNI, and overflow."""

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""Optimisers to leave out. The fused kernel takes 0.23 ms for [80, 768], add and layer norm apart 0.05 ms: together a
seventh of the INT8 text graph's time."""

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
}
"""numpy's names of the types that graphs read and answer."""

_NO_MEMORY = ("failed to allocate memory", "out of memory", "status_alloc_failed")
"""What ONNX Runtime, CUDA, cuBLAS and cuDNN say where memory does not suffice, in lower case."""

Providers = Mapping[str, Mapping[str, str]]
"""Options by execution provider, the one that must load first."""


class OnnxRuntimeBackend(HostBackend):
    """See `Backend`. Prefixes are numpy arrays.

    Args:
        bundle: a checked bundle.
        threads: CPU threads of one call; by default all cores.
        precision: of the graphs; by default FP32 where the bundle has it. FP16 is no faster: it is computed in FP32.
            `int8_fp16` takes twice as long, for it is rounded to INT8 besides; it tells what TensorRT's engines answer.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the bundle does not have the precision, or a graph is damaged or of another model.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, precision: str | None = None) -> None:
        runtime = require_provider(CPU, "cpu")
        chosen = bundle.prefer("fp32", "int8", "fp16", "int8_fp16", wanted=precision)
        super().__init__("onnxruntime-cpu", bundle, chosen)
        self._threads, options = threads, cpu_options(runtime, chosen, threads)
        self._sessions = {
            graph: load_session(
                runtime,
                bundle.onnx(graph, chosen),
                bundle.graph(graph, chosen),
                spec,
                {CPU: {}},
                options,
                _SLOW_FUSIONS,
            )
            for graph, spec in self._specs.items()
        }

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`."""
        return load_cpu_grounder(self._bundle, self._threads, self.precision)

    def _run(self, graph: GraphName, feeds: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32]
        (output,) = run_session(self.name, self._sessions[graph], self._specs[graph], feeds)
        return output


def load_cpu_grounder(bundle: Bundle, threads: int | None = None, precision: str = "fp32") -> Grounder:
    """The grounder of a bundle on the CPU, whatever runs the bundle's other graphs, and wherever.

    Args:
        bundle: a checked bundle.
        threads: CPU threads of one call; by default all cores.
        precision: of the graphs beside it; see `GrounderSpec.prefer`.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the bundle has no grounder, or a graph of it is damaged or another's.
    """
    runtime = require_provider(CPU, "cpu")
    options = cpu_options(runtime, precision, threads)
    return load_grounder(runtime, bundle, "onnxruntime-cpu", precision, {CPU: {}}, options, _SLOW_FUSIONS)


def load_grounder(
    runtime: Any,  # noqa: ANN401  onnxruntime has no types
    bundle: Bundle,
    name: str,
    precision: str,
    providers: "Providers",
    options: Any,  # noqa: ANN401
    disabled_optimizers: Sequence[str] = (),
    *,
    few_shapes: bool = False,
) -> Grounder:
    """The grounder of a bundle, for the backend of this name and precision; the rest is as of `load_session`.

    With `few_shapes`, pictures are padded to a power of two, for libraries that search for a kernel for every count;
    and a batch that the device's memory does not suffice for is run in halves.
    """
    specs, chosen = bundle.grounder_specs(), bundle.grounder.prefer(precision)
    sessions = {
        graph: load_session(
            runtime,
            bundle.onnx(graph, chosen),
            bundle.graph(graph, chosen),
            spec,
            providers,
            options,
            disabled_optimizers,
        )
        for graph, spec in specs.items()
    }

    def run(graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
        return run_session(name, sessions[graph], specs[graph], feeds)

    if not few_shapes:
        return Grounder(name, chosen, specs, run)
    halving = Halving(f"the grounder of {name}")

    def run_in_parts(graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
        if graph != "grounder":
            return run(graph, feeds)

        def run_part(part: slice) -> list[Array]:
            count = part.stop - part.start
            padded = {each: pad_rows(array[part], power_of_two(count)) for each, array in feeds.items()}
            return [output[:count] for output in run(graph, padded)]

        pictures, queries = feeds["queries"].shape[:2]
        parts = halving.run(queries, pictures, MAX_GROUNDED, run_part)
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    words = len(bundle.grounder.words) or 1
    every = [(count, words) for count in range(1, MAX_GROUNDED + 1) if count == power_of_two(count)]
    return Grounder(name, chosen, specs, run_in_parts, slow_at_first={"grounder": every})


def run_session(name: str, session: Any, spec: GraphSpec, feeds: Mapping[str, Array]) -> list[Array]:  # noqa: ANN401
    """The outputs of a graph, in the order of its spec.

    Raises:
        BackendError: it failed; the backend is called by its name.
    """
    try:
        outputs: list[Array] = session.run([output.name for output in spec.outputs], feeds)
    except Exception as error:  # its exception classes are private to the extension
        raise failure_of(name, error) from error
    return outputs


def failure_of(name: str, error: Exception) -> BackendError:
    """What a run of ONNX Runtime that raised an error, of whatever class, is to the callers of a backend."""
    reason = (str(error).splitlines() or ["it gives no reason"])[0]
    kind = DeviceMemoryError if any(words in str(error).lower() for words in _NO_MEMORY) else BackendError
    return kind(f"{name} failed: {reason}")


def pad_rows(array: Array, rows: int) -> Array:
    """An array [n, ...] with rows of 0 after its own: [rows, ...]."""
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def cpu_options(runtime: Any, precision: str, threads: int | None = None) -> Any:  # noqa: ANN401  onnxruntime has no types
    """Options of a session on the CPU.

    Args:
        runtime: see `require_provider`.
        precision: of the graph.
        threads: of one call; by default all cores.
    """
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry(*_SPIN_WITHIN_RUNS)
    if precision == "int8_fp16":
        options.add_session_config_entry(*_ROUND_ALONE)
    return options


def require_provider(provider: str, extra: str) -> Any:  # noqa: ANN401  onnxruntime has no types
    """ONNX Runtime's module, of a build that has an execution provider.

    Raises:
        MissingExtraError: it is not installed; the extra is named.
        BackendError: this build has no such provider.
    """
    if "onnxruntime" not in sys.modules:  # afterwards it is too late, and unset says that the thread is there
        os.environ.setdefault(_NO_TELEMETRY, "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra, "a backend of ONNX Runtime") from error
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise BackendError(f"this build of onnxruntime has no {provider}, only {', '.join(available)}")
    return onnxruntime


def load_session(
    runtime: Any,  # noqa: ANN401  onnxruntime has no types
    file: Path,
    content: bytes,
    spec: GraphSpec,
    providers: Providers,
    options: Any,  # noqa: ANN401
    disabled_optimizers: Sequence[str] = (),
) -> Any:  # noqa: ANN401
    """A session of a graph on the first of the providers.

    Args:
        runtime: see `require_provider`.
        file: what messages call the graph.
        content: of the file, which was checked; it holds its weights itself.
        spec: what the graph must read and answer.
        providers: which, and their options.
        options: of the session.
        disabled_optimizers: by name.

    Raises:
        BundleError: the graph is damaged, or reads or answers something else.
        BackendError: the provider did not load, or not this graph.
    """
    first = next(iter(providers))
    chosen = [(name, dict(settings)) for name, settings in providers.items()]
    try:
        session = runtime.InferenceSession(
            content, options, providers=chosen, disabled_optimizers=list(disabled_optimizers)
        )
    except Exception as error:  # its exception classes are private to the extension
        reason = f"ONNX Runtime cannot load {file}: {(str(error).splitlines() or ['it gives no reason'])[0]}"
        if first == CPU:
            raise BundleError(f"{reason}; {remake(spec.name)}, or upgrade onnxruntime") from error
        raise BackendError(reason) from error  # it may be the device that is too small
    session._model_bytes = None  # it would be kept for a retry on another provider, as long as the session  # noqa: SLF001
    if session.get_providers()[0] != first:  # it falls back to the CPU without an error
        raise BackendError(f"{first} did not load: check the CUDA and cuDNN libraries it needs")
    spec.check(file, map(_found, session.get_inputs()), map(_found, session.get_outputs()))
    never_free_in_forks(session)
    _warn_of_telemetry()
    return session


@cache  # once
def _warn_of_telemetry() -> None:
    if _NO_TELEMETRY not in os.environ and hasattr(os, "fork"):
        _log.warning(
            "onnxruntime was imported before a backend was loaded, with its telemetry on, which keeps forked processes "
            "from ending: set %s=1 before the import, or load the pipeline first",
            _NO_TELEMETRY,
        )


def _found(node: Any) -> FoundTensor:  # noqa: ANN401
    axes = tuple(size if isinstance(size, int) else None for size in node.shape)
    return FoundTensor(node.name, _DTYPES.get(node.type, node.type), axes)
