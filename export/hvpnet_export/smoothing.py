"""SmoothQuant: part of what makes activations hard to quantise is moved into the weights, where it is easy.

A few channels of BERT's activations are a hundred times as large as the others, and one scale for all channels leaves
those a handful of levels. Dividing every channel of a linear layer's input by a factor and multiplying the rows of its
weight by the same changes no product, only where the large numbers are. Source: Xiao et al., SmoothQuant (ICML 2023);
ONNX Runtime's quantiser has it only through releases of neural-compressor that are no longer kept.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from hvpnet_runtime.backends.onnxruntime import CPU, require_provider

STRENGTH = 0.75
"""Share of an input's spread that moves into the weights, `alpha` in the paper. With it 18 of 17,234 tags of a 6-layer
BERT differ from FP32 on Twitter-2015, without smoothing 51; 0.5 and less are worse, 0.7 to 0.85 as good."""

_TINY = 1e-5  # a channel that is always zero stays as it is
_MOST = 2.0**14  # FP16 goes up to 2^16, and down to 2^-14 with all its bits

Array = npt.NDArray[np.float32]


def smooth(model: Any, names: Sequence[str], feeds: Iterable[dict[str, Any]]) -> None:  # noqa: ANN401  onnx has no types
    """Give the linear layers of a graph smoother inputs, in place; it computes the same.

    Args:
        model: the graph; one `Mul` for each distinct input is added.
        names: of MatMul nodes whose second input is a weight [in, out], all of one type.
        feeds: typical inputs of the graph.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers: dict[str, list[Any]] = {}  # by input: query, key and value share theirs
    for node in model.graph.node:
        if node.name in names:
            layers.setdefault(node.input[0], []).append(node)
    dtype = numpy_helper.to_array(weights[next(iter(layers.values()))[0].input[1]]).dtype
    largest = _largest(model, list(layers), feeds, dtype)
    for name, nodes in layers.items():
        rows = np.max([np.abs(numpy_helper.to_array(weights[node.input[1]])).max(1) for node in nodes], axis=0)  # [in]
        inverse = np.clip(1 / _factor(largest[name], rows), 1 / _MOST, _MOST).astype(dtype)  # [in]
        factor = 1 / inverse.astype(np.float32)  # of what it is rounded to, so that both cancel out
        for node in nodes:
            weight = weights[node.input[1]]
            scaled = numpy_helper.to_array(weight) * factor[:, None]  # [in, out], FP32
            weight.CopyFrom(numpy_helper.from_array(scaled.astype(dtype), weight.name))
        _divide(model.graph, name, nodes, inverse)


def _largest(
    model: Any,  # noqa: ANN401
    names: list[str],
    feeds: Iterable[dict[str, Any]],
    dtype: np.dtype[Any],
) -> dict[str, Array]:
    """The largest magnitude of every channel of these activations of one type, [channels] each."""
    onnxruntime = require_provider(CPU, "cpu")
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    probe.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=[CPU])
    largest: dict[str, Array] = {}
    for feed in feeds:
        for name, values in zip(names, session.run(names, feed), strict=True):
            found = np.abs(values).reshape(-1, values.shape[-1]).max(0).astype(np.float32)  # [channels]
            largest[name] = np.maximum(largest.get(name, found), found)
    return largest


def _factor(activations: Array, weights: Array) -> Array:
    """What each channel of the input is divided by, [channels]; their geometric mean is 1."""
    spread = np.maximum(activations, _TINY) ** STRENGTH / np.maximum(weights, _TINY) ** (1 - STRENGTH)
    factor: Array = (spread / np.exp(np.log(spread).mean())).astype(np.float32)
    return factor


def _divide(graph: Any, name: str, nodes: Sequence[Any], inverse_factor: npt.NDArray[Any]) -> None:  # noqa: ANN401
    smooth_name, inverse = f"{name}_smooth", numpy_helper.from_array(inverse_factor, f"{name}_inverse_factor")
    first = min(index for index, node in enumerate(graph.node) if node.name == nodes[0].name)
    graph.initializer.append(inverse)
    graph.node.insert(first, helper.make_node("Mul", [name, inverse.name], [smooth_name], name=smooth_name))
    for node in nodes:
        node.input[0] = smooth_name
