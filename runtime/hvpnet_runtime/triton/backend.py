"""The two graphs as models of the same Triton server, called from within its Python model."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

import numpy as np

from hvpnet_runtime.backends.base import Array, HostBackend
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.bundle import Axis, Bundle, GraphName, Precision
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.triton.settings import TRITON, Settings

Infer: TypeAlias = Callable[[str, Mapping[str, Array], str], Array]
"""Runs a model of the server on inputs, all with the batch first, and gives the output of that name."""


class TritonBackend(HostBackend):
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

    run_tokens: int | None = None

    def __init__(self, bundle: Bundle, model: str, max_batch: int, settings: Settings, infer: Infer) -> None:
        super().__init__(TRITON, bundle, cast("Precision", settings.precision))
        self._model, self._max_batch = model, max_batch
        self._lengths, self._infer = settings.lengths, infer

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. It runs in the Python model's own process, on the CPU."""
        return load_cpu_grounder(self._bundle, precision=self.precision)

    def _run(self, graph: GraphName, feeds: Mapping[str, Array]) -> Array:
        spec, model = self._specs[graph], f"{self._model}_{graph}"
        if graph == "vision":
            return self._infer(model, feeds, spec.output.name)
        rows, length = feeds["input_ids"].shape
        sizes: dict[Axis, int] = {"batch": rows, "length": self._bucket(length)}
        padded = {tensor.name: _padded(feeds[tensor.name], tensor.shape(sizes)) for tensor in spec.inputs}
        parts = [slice(start, start + self._max_batch) for start in range(0, rows, self._max_batch)]
        outputs = [
            self._infer(model, {name: array[part] for name, array in padded.items()}, spec.output.name)
            for part in parts
        ]
        output: Array = np.concatenate(outputs)  # [B, bucket, labels] or [B, relations]
        return output[tuple(map(slice, spec.output.shape({"batch": rows, "length": length})))]

    def _bucket(self, length: int) -> int:
        index = bisect_left(self._lengths, length)
        if index == len(self._lengths):
            raise BackendError(
                f"{self._model}_text takes up to {self._lengths[-1]} pieces, not {length}: build its engine"
                " with hvpnet build and a larger --max-seq"
            )
        return self._lengths[index]


def _padded(array: Array, shape: tuple[int, ...]) -> Array:
    """The array in the corner of a larger one, the rest 0. One number a row gets an axis, which Triton takes away."""
    padded = np.pad(array, [(0, size - own) for size, own in zip(shape, array.shape, strict=True)])
    return padded[:, None] if padded.ndim == 1 else padded
