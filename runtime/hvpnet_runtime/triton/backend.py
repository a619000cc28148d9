"""The two graphs as models of the same Triton server, called from within its Python model."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Prefix, TextInputs
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.triton.settings import TRITON, Settings

Array: TypeAlias = npt.NDArray[Any]


class Infer(Protocol):
    """Runs one model of the server."""

    def __call__(self, model: str, inputs: Mapping[str, Array], output: str) -> Array:
        """The output of a model, given its inputs, all with the batch first.

        Raises:
            BackendError: the server answered with an error.
        """
        ...


class TritonBackend:
    """See `Backend`. Prefixes are numpy arrays: between the two graphs they visit the host.

    Triton batches requests whose shapes are equal, so texts are padded to length buckets: then those that several
    processes of the Python model ask for at once can run together.

    Args:
        bundle: says which inputs the graphs have.
        model: name of the Python model; its graphs are `model_vision` and `model_text`.
        max_batch: most texts in one request.
        settings: precision and length buckets.
        infer: runs a model.
    """

    name = TRITON
    max_length: int | None = None

    def __init__(self, bundle: Bundle, model: str, max_batch: int, settings: Settings, infer: Infer) -> None:
        self.precision = settings.precision
        self._bundle, self._model, self._max_batch = bundle, model, max_batch
        self._lengths, self._infer = settings.lengths, infer

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """See `Backend`."""
        prefixes = self._infer(f"{self._model}_vision", {"images": images}, "prefix")  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        rows, length = text.input_ids.shape
        inputs: dict[str, Array] = dict(text.arrays())
        padding = ((0, 0), (0, self._bucket(length) - length))
        for name in ("input_ids", "attention_mask"):
            inputs[name] = np.pad(inputs[name], padding)  # [B, bucket]
        for name in inputs.keys() & {"head_index", "tail_index"}:
            inputs[name] = inputs[name][:, None]  # [B, 1]: Triton takes the 1 away
        if self._bundle.sizes.pictures:
            inputs["prefix"] = np.stack([np.stack(list(row)) for row in prefixes])  # type: ignore[arg-type]
        ner = self._bundle.task == "ner"
        outputs = [
            self._infer(
                f"{self._model}_text",
                {name: array[start : start + self._max_batch] for name, array in inputs.items()},
                "emissions" if ner else "logits",
            )
            for start in range(0, rows, self._max_batch)
        ]
        output: npt.NDArray[np.float32] = np.concatenate(outputs)  # [B, bucket, labels] or [B, relations]
        return output[:, :length] if ner else output

    def close(self) -> None:
        """See `Backend`. The models are the server's."""

    def _bucket(self, length: int) -> int:
        index = bisect_left(self._lengths, length)
        if index == len(self._lengths):
            raise BackendError(
                f"{self._model}_text takes up to {self._lengths[-1]} pieces, not {length}: build its engine with a"
                " larger --max-seq"
            )
        return self._lengths[index]
