"""Networks that are written anew compute the same: their layers are evaluated here, one by one, without a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.network import parse, replace_wide_products

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_products_of_elements_are_the_matrix_product(api: Library, operator: str) -> None:
    """Both ways a classifier is written: of three axes, and of two with a transposed weight."""
    draw = np.random.default_rng(0).standard_normal
    rows, weight, bias = (draw(shape).astype(np.float32) for shape in ((2, 3, 8), (8, 13), (13,)))
    if operator == "MatMul":
        axes, table = ["batch", "length"], weight
        nodes = [helper.make_node("MatMul", ["rows", "table"], ["product"])]
        nodes += [helper.make_node("Add", ["product", "bias"], ["out"])]
    else:
        axes, table, rows = ["batch"], weight.T.copy(), rows[0]
        nodes = [helper.make_node("Gemm", ["rows", "table", "bias"], ["out"], transB=1)]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [*axes, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [*axes, 13])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    network = parse(api, api.trt.Builder(api.logger), model.SerializeToString(), Path("classifier.onnx"))
    replace_wide_products(api, network)
    found = evaluate(api.trt, network, {"rows": rows}, "out")
    np.testing.assert_allclose(found, rows @ weight + bias, rtol=1e-5, atol=1e-5)


def evaluate(trt: Any, network: Any, values: dict[str, Any], output: str) -> Any:
    """The output of a network without matrix products; layers stand in no order."""
    kinds = {
        "CONSTANT": (trt.IConstantLayer, constant),
        "SHUFFLE": (trt.IShuffleLayer, shuffle),
        "ELEMENTWISE": (trt.IElementWiseLayer, elementwise),
        "REDUCE": (trt.IReduceLayer, total),
    }
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    while output not in values:
        for layer in layers:
            inputs = [layer.get_input(index).name for index in range(layer.num_inputs)]
            if layer.type.name in kinds and set(inputs) <= set(values):
                layer.__class__, compute = kinds[layer.type.name]
                values[layer.get_output(0).name] = compute(layer, *(values[name] for name in inputs))
    return values[output]


def constant(layer: Any) -> Any:
    return np.array(layer.weights).reshape(tuple(layer.shape))


def shuffle(layer: Any, array: Any) -> Any:
    array = array.transpose(list(layer.first_transpose)[: array.ndim])
    return array.reshape([size or array.shape[axis] for axis, size in enumerate(layer.reshape_dims)])


def elementwise(layer: Any, left: Any, right: Any) -> Any:
    return {"PROD": np.multiply, "SUM": np.add}[layer.op.name](left, right)


def total(layer: Any, array: Any) -> Any:
    axes = tuple(axis for axis in range(array.ndim) if layer.axes >> axis & 1)
    return array.sum(axes, keepdims=layer.keep_dims)
