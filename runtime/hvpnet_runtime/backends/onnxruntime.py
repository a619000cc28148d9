"""The bundle's ONNX graphs in ONNX Runtime on the CPU, and how a session of any provider is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, MissingExtraError

CPU = "CPUExecutionProvider"

Providers = Mapping[str, Mapping[str, str]]
"""Options by execution provider, the one that must load first."""


class OnnxRuntimeBackend:
    """See `Backend`. Prefixes are numpy arrays.

    Args:
        bundle: a checked bundle; its FP32 graphs are run where it has them, since CPUs compute in FP32 anyway.
        threads: CPU threads of one call; by default all cores.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BackendError: a graph is damaged.
    """

    name = "onnxruntime-cpu"

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        runtime = import_onnxruntime("cpu")
        self.precision = bundle.prefer("fp32", "fp16")
        options = runtime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        vision, text = bundle.onnx("vision", self.precision), bundle.onnx("text", self.precision)
        self._vision = load_session(runtime, vision, {CPU: {}}, options) if bundle.sizes.pictures else None
        self._text = load_session(runtime, text, {CPU: {}}, options)

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`."""
        if self._vision is None:
            raise BackendError("this bundle reads no pictures (variant text_only)")
        prefixes: npt.NDArray[np.float32] = self._vision.run(None, {"images": images})[0]  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        feeds: dict[str, Any] = text.arrays()
        if self._vision is not None:
            feeds["prefix"] = np.stack([np.stack(list(row)) for row in prefixes])  # type: ignore[arg-type]
        outputs: npt.NDArray[np.float32] = self._text.run(None, feeds)[0]
        return outputs

    def close(self) -> None:
        """See `Backend`."""
        self._vision = self._text = None


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


def load_session(runtime: Any, path: Path, providers: Providers, options: Any) -> Any:  # noqa: ANN401
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
        session = runtime.InferenceSession(str(path), options, providers=chosen)
    except Exception as error:  # its exception classes are private to the extension
        raise BackendError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}") from error
    if session.get_providers()[0] != first:  # it falls back to the CPU without an error
        raise BackendError(f"{first} did not load: check the CUDA and cuDNN libraries it needs")
    return session
