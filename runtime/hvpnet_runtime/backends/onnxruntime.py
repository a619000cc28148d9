"""The bundle's ONNX graphs in ONNX Runtime on the CPU, and how a session of any provider is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs, no_pictures, stack_prefixes
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, MissingExtraError

CPU = "CPUExecutionProvider"

_SPIN_WITHIN_RUNS = ("session.force_spinning_stop", "1")
"""Threads spin for work within a run, not after it: there they would take the cores from the other graph, whose session
has threads of its own, and from the decoding of pictures. INT8 vision and text one after the other, on two cores: 41 ms
instead of 50."""

_SLOW_FUSIONS = ("SkipLayerNormFusion",)
"""Optimisers to leave out. The fused kernel takes 0.23 ms for [80, 768], add and layer norm apart 0.05 ms: together a
seventh of the INT8 text graph's time."""

Providers = Mapping[str, Mapping[str, str]]
"""Options by execution provider, the one that must load first."""


class OnnxRuntimeBackend:
    """See `Backend`. Prefixes are numpy arrays.

    Args:
        bundle: a checked bundle.
        threads: CPU threads of one call; by default all cores.
        precision: of the graphs; by default FP32 where the bundle has it. FP16 is no faster: it is computed in FP32.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BundleError: the bundle does not have the precision.
        BackendError: a graph is damaged.
    """

    name = "onnxruntime-cpu"
    max_length: int | None = None

    def __init__(self, bundle: Bundle, threads: int | None = None, precision: str | None = None) -> None:
        runtime = import_onnxruntime("cpu")
        self.precision = bundle.prefer("fp32", "int8", "fp16", wanted=precision)
        options = runtime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        options.add_session_config_entry(*_SPIN_WITHIN_RUNS)
        vision, text = bundle.onnx("vision", self.precision), bundle.onnx("text", self.precision)
        self._vision = (
            load_session(runtime, vision, {CPU: {}}, options, _SLOW_FUSIONS) if bundle.sizes.pictures else None
        )
        self._text = load_session(runtime, text, {CPU: {}}, options, _SLOW_FUSIONS)

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`."""
        if self._vision is None:
            raise BackendError(no_pictures(self.name, closed=self._text is None))
        prefixes = self._run(self._vision, {"images": images})  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        if self._text is None:
            raise BackendError(f"the backend {self.name} is closed")
        feeds: dict[str, Any] = text.arrays()
        if self._vision is not None:
            feeds["prefix"] = stack_prefixes(prefixes)
        return self._run(self._text, feeds)

    def close(self) -> None:
        """See `Backend`."""
        self._vision = self._text = None

    def _run(self, session: Any, feeds: Mapping[str, Any]) -> npt.NDArray[np.float32]:  # noqa: ANN401
        try:
            output: npt.NDArray[np.float32] = session.run(None, feeds)[0]
        except Exception as error:  # its exception classes are private to the extension
            raise BackendError(f"{self.name} failed: {str(error).splitlines()[0]}") from error
        return output


def import_onnxruntime(extra: str) -> Any:  # noqa: ANN401  onnxruntime has no types
    """The module.

    Raises:
        MissingExtraError: it is not installed; the extra is named.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", extra, "a backend of ONNX Runtime") from error
    return onnxruntime


def load_session(
    runtime: Any,  # noqa: ANN401  onnxruntime has no types
    path: Path,
    providers: Providers,
    options: Any,  # noqa: ANN401
    disabled_optimizers: Sequence[str] = (),
) -> Any:  # noqa: ANN401
    """A session on the first of the providers.

    Raises:
        BackendError: this build has no such provider, or it did not load, or the graph is damaged.
    """
    first = next(iter(providers))
    available = runtime.get_available_providers()
    if first not in available:
        raise BackendError(f"this build of onnxruntime has no {first}, only {', '.join(available)}")
    chosen = [(name, dict(settings)) for name, settings in providers.items()]
    try:
        session = runtime.InferenceSession(
            str(path), options, providers=chosen, disabled_optimizers=list(disabled_optimizers)
        )
    except Exception as error:  # its exception classes are private to the extension
        raise BackendError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != first:  # it falls back to the CPU without an error
        raise BackendError(f"{first} did not load: check the CUDA and cuDNN libraries it needs")
    return session
