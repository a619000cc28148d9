"""The bundle's ONNX graphs in ONNX Runtime, on the CPU or through its CUDA provider."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError, MissingExtraError

_NAMES = {"CPUExecutionProvider": "onnxruntime-cpu", "CUDAExecutionProvider": "onnxruntime-cuda"}


class OnnxRuntimeBackend:
    """See `Backend`. Prefixes are numpy arrays.

    Args:
        bundle: a checked bundle.
        provider: ONNX Runtime's name of the execution provider.
        threads: CPU threads of one call; by default all cores.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BackendError: the provider is not in this build, or did not load, or a graph is damaged.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            extra = "gpu" if provider == "CUDAExecutionProvider" else "cpu"
            raise MissingExtraError("onnxruntime", extra, f"the backend {_NAMES[provider]}") from error
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise BackendError(f"this build of onnxruntime has no {provider}, only {', '.join(available)}")
        self.name = _NAMES[provider]
        self._runtime, self._provider, self._threads = onnxruntime, provider, threads
        self._vision = self._load(str(bundle.onnx("vision"))) if bundle.sizes.pictures else None
        self._text = self._load(str(bundle.onnx("text")))

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`."""
        if self._vision is None:
            raise BackendError("this bundle reads no pictures (variant text_only)")
        prefixes: npt.NDArray[np.float32] = self._vision.run(None, {"images": images})[0]  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        feeds: dict[str, Any] = {"input_ids": text.input_ids, "attention_mask": text.attention_mask}
        if self._vision is not None:
            feeds["prefix"] = np.stack([np.stack(list(row)) for row in prefixes])  # type: ignore[arg-type]
        if text.head_index is not None:
            feeds |= {"head_index": text.head_index, "tail_index": text.tail_index}
        outputs: npt.NDArray[np.float32] = self._text.run(None, feeds)[0]
        return outputs

    def close(self) -> None:
        """See `Backend`."""
        self._vision = self._text = None

    def _load(self, path: str) -> Any:  # noqa: ANN401  onnxruntime has no types
        options = self._runtime.SessionOptions()
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            session = self._runtime.InferenceSession(path, options, providers=[self._provider])
        except Exception as error:  # its exception classes are private to the extension
            raise BackendError(f"{self.name} cannot load {path}: {str(error).splitlines()[0]}") from error
        if session.get_providers()[0] != self._provider:  # it falls back to the CPU without an error
            raise BackendError(f"{self._provider} did not load: check the CUDA and cuDNN libraries it needs")
        return session
