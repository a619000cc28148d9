"""What the graphs of a bundle read and answer: the one place where their inputs and outputs are spelled."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from hvpnet_runtime.bundle.grounder_spec import GrounderSpec, remake
from hvpnet_runtime.bundle.manifest import Manifest
from hvpnet_runtime.bundle.precision import QUANTISED, Precision
from hvpnet_runtime.errors import BundleError

GraphName: TypeAlias = Literal["vision", "text", "grounder", "queries"]
Axis: TypeAlias = Literal["pictures", "batch", "length", "queries"]
"""Axes whose size differs from run to run: distinct pictures, texts, pieces of the longest text, and queries."""


class FoundTensor(NamedTuple):
    """An input or output of a graph as a library reports it; the size of an axis that may differ is None."""

    name: str
    dtype: str
    axes: tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output.

    Attributes:
        name: as the graph calls it.
        dtype: of its values.
        axes: sizes; the name of an axis stands where the size differs from run to run.
    """

    name: str
    dtype: "np.dtype[np.generic]"
    axes: tuple[int | Axis, ...]

    def shape(self, sizes: Mapping[Axis, int]) -> tuple[int, ...]:
        """The shape for these sizes of the axes."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)

    @property
    def expected(self) -> FoundTensor:
        """What a library should report of it."""
        return FoundTensor(
            self.name, self.dtype.name, tuple(axis if isinstance(axis, int) else None for axis in self.axes)
        )

    def nbytes(self, sizes: Mapping[Axis, int]) -> int:
        """Bytes of such a tensor."""
        return prod(self.shape(sizes)) * self.dtype.itemsize


@dataclass(frozen=True)
class GraphSpec:
    """A graph's interface.

    Attributes:
        name: the file is `onnx/<precision>/<name>.onnx`.
        inputs: in the graph's order.
        outputs: likewise.
    """

    name: GraphName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def output(self) -> TensorSpec:
        """The output of a graph that has only one."""
        (output,) = self.outputs
        return output

    def sizes(self, rows: int, length: int | None) -> dict[Axis, int]:
        """The axes' sizes for so many pictures, texts or queries of so many pieces.

        The length of what the grounder reads is its queries.
        """
        queries = rows if self.name == "queries" else length or 0
        return {"pictures": rows, "batch": rows, "queries": queries, "length": length or 0}

    def input_shapes(self, rows: int, length: int | None) -> dict[str, tuple[int, ...]]:
        """The shape of every input for these sizes."""
        sizes = self.sizes(rows, length)
        return {tensor.name: tensor.shape(sizes) for tensor in self.inputs}

    def check(self, file: Path, inputs: Iterable[FoundTensor], outputs: Iterable[FoundTensor]) -> None:
        """Hold a loaded graph against this interface.

        Args:
            file: the graph, or the plan built from it.
            inputs: in any order.
            outputs: likewise.

        Raises:
            BundleError: a name, type, rank or size differs; the message says which.
        """
        needed, made = ({each.name: each.expected for each in side} for side in (self.inputs, self.outputs))
        for what, wanted, found in (("inputs", needed, inputs), ("outputs", made, outputs)):
            named = {tensor.name: tensor for tensor in found}
            if named.keys() != wanted.keys():
                raise BundleError(
                    f"{file} has the {what} {_listed(named)}, the manifest's model {_listed(wanted)}:"
                    f" {remake(self.name)}"
                )
            for name, tensor in named.items():
                if tensor != wanted[name]:
                    raise BundleError(
                        f"{file}: {name} is {_described(tensor)}, the manifest's model has {_described(wanted[name])}:"
                        f" {remake(self.name)}"
                    )


def graph_specs(manifest: Manifest, precision: Precision) -> dict[GraphName, GraphSpec]:
    """The graphs of a bundle's model, in the order in which they run; `text_only` has no vision graph.

    Emissions and logits are float32 in every precision. Prefixes are float16 in FP16 graphs and the INT8 ones made of
    them, and else float32: they stay between the two graphs, where half the bytes are half the memory of the prefix
    cache.

    Args:
        manifest: task, sizes and head.
        precision: of the graphs.
    """
    sizes, labels = manifest.sizes, len(manifest.labels)
    side = manifest.preprocessing.crop
    prefix = np.dtype(np.float16 if QUANTISED.get(precision, precision) == "fp16" else np.float32)
    inputs = [_integers(name, "batch", "length") for name in ("input_ids", "attention_mask")]
    if sizes.pictures:
        inputs.append(TensorSpec("prefix", prefix, ("batch", sizes.pictures, *sizes.prefix_shape)))
    if manifest.head == "markers":
        inputs += [_integers(name, "batch") for name in ("head_index", "tail_index")]
    name, axes = ("emissions", ("length",)) if manifest.task == "ner" else ("logits", ())
    output = TensorSpec(name, np.dtype(np.float32), ("batch", *axes, labels))
    text = GraphSpec("text", tuple(inputs), (output,))
    if not sizes.pictures:
        return {"text": text}
    made = TensorSpec("prefix", prefix, ("pictures", *sizes.prefix_shape))
    return {"vision": GraphSpec("vision", (_images(side),), (made,)), "text": text}


def grounder_specs(spec: GrounderSpec) -> dict[GraphName, GraphSpec]:
    """The graphs of a grounder: `grounder`, and `queries` where queries are made of the text.

    Everything but pictures and pieces is float32, whatever the precision inside. Boxes are (x0, y0, x1, y1) as shares
    of the side of the square that the grounder reads, and not clipped to it; each is the best of its query.
    """
    grounder = GraphSpec(
        "grounder",
        (_images(spec.size), _floats("queries", "pictures", "queries", spec.query_size)),
        (_floats("boxes", "pictures", "queries", 4), _floats("scores", "pictures", "queries")),
    )
    if spec.queries == "fixed":
        return {"grounder": grounder}
    pieces = tuple(_integers(name, "queries", "length") for name in ("input_ids", "attention_mask"))
    return {
        "grounder": grounder,
        "queries": GraphSpec("queries", pieces, (_floats("queries", "queries", spec.query_size),)),
    }


def _listed(tensors: Mapping[str, FoundTensor]) -> str:
    return ", ".join(sorted(tensors)) or "none"


def _described(tensor: FoundTensor) -> str:
    return f"{tensor.dtype} [{', '.join('any' if size is None else str(size) for size in tensor.axes)}]"


def _images(side: int) -> TensorSpec:
    return TensorSpec("images", np.dtype(np.uint8), ("pictures", side, side, 3))


def _floats(name: str, *axes: int | Axis) -> TensorSpec:
    return TensorSpec(name, np.dtype(np.float32), axes)


def _integers(name: str, *axes: Axis) -> TensorSpec:
    return TensorSpec(name, np.dtype(np.int64), axes)
