"""Smoothing changes where large numbers are, not what is computed."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hvpnet_export.smoothing import STRENGTH, smooth


def two_layers(weights: list[Any]) -> Any:
    """Two linear layers of one input x [rows, 3], which is a sum, as a layer norm's output is one of its bias."""
    tensors = [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    zero = numpy_helper.from_array(np.zeros(3, np.float32), "zero")
    nodes = [helper.make_node("Add", ["x", "zero"], ["hidden"], name="add")]
    nodes += [helper.make_node("MatMul", ["hidden", f"w{i}"], [f"y{i}"], name=f"layer{i}") for i in range(2)]
    value = helper.make_tensor_value_info
    outputs = [value(f"y{index}", TensorProto.FLOAT, ["n", "m"]) for index in range(2)]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ["n", 3])], outputs, [zero, *tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_one_factor_for_the_layers_of_one_input() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2)]
    feeds = [{"x": (rng.standard_normal((5, 3)) * [1, 100, 0.1]).astype(np.float32)} for _ in range(2)]
    model = two_layers(weights)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds[0])
    smooth(model, ["layer0", "layer1"], feeds)
    onnx.checker.check_model(model)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds[0])
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul", "MatMul", "MatMul"]
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    largest = np.abs(np.concatenate([feed["x"] for feed in feeds])).max(0)  # [3]
    rows = np.abs(np.concatenate(weights, axis=1)).max(1)  # [3]
    expected = largest**STRENGTH / rows ** (1 - STRENGTH)
    expected /= np.prod(expected) ** (1 / 3)
    np.testing.assert_allclose(1 / stored["hidden_inverse_factor"], expected, rtol=1e-5)
    np.testing.assert_allclose(stored["w1"], weights[1] * expected[:, None], rtol=1e-5)
    smoother = largest / expected
    assert smoother.max() / smoother.min() < (largest.max() / largest.min()) ** 0.5


def test_a_channel_that_is_always_zero() -> None:
    weights = [np.ones((3, 2), np.float32)] * 2
    feeds = [{"x": np.array([[1, 0, 2]], np.float32)}]
    model = two_layers(weights)
    smooth(model, ["layer0", "layer1"], feeds)
    (first, _) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds[0])
    np.testing.assert_allclose(first, [[3, 3]], rtol=1e-5)
