"""Kernels of an engine, counted in what the library says."""

import onnx
import pytest
from onnx import helper
from rewrite import resaved

from hvpnet_runtime import Bundle
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.kernels import Kernels, count_kernels
from hvpnet_runtime.backends.tensorrt.record import BuildRecord

OPTIONS = BuildOptions("tensorrt-rtx", max_batch=1, max_length=16, gpus=("8.9",))


def test_kernels_are_counted_by_profile() -> None:
    layers = [
        "Name: first_myl0_0, LayerType: kgen, Inputs: [ { Name: input_ids, Dimensions: [1,32] }]",
        "Name: _gemm_mha_v2_myl0_1, LayerType: kgen, Inputs: []",
        "Name: size_myl1_0, LayerType: shape_call, Inputs: []",  # of the host
        "Name: first_myl1_1, LayerType: kgen, Inputs: [ { Name: input_ids [profile 1], Dimensions: [-1,32] }]",
        "Name: node_MatMul [profile 1]+node_MatMul_2 [profile 1]_myl1_2, LayerType: gemm, Inputs: []",
        "Name: last_myl1_3, LayerType: kgen, Inputs: []",
    ]
    assert count_kernels(["Graph construction completed", "\n".join(["Layers:", *layers])]) == (
        Kernels(2, attention=1),
        Kernels(3, attention=0),
    )
    assert count_kernels(["Engine generation completed"]) == ()


@pytest.mark.heavy
def test_attention_that_is_not_fused_is_a_warning(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """Widening the values ahead of the last product is what breaks the pattern."""
    build_engines(bundle, OPTIONS)
    assert not caplog.messages
    path = bundle.onnx("text", "fp16")
    model = onnx.load(path)
    (product, *_) = [
        node
        for softmax in model.graph.node
        if softmax.op_type == "Softmax"
        for cast in model.graph.node
        if softmax.output[0] in cast.input
        for node in model.graph.node
        if cast.output[0] in node.input and node.op_type == "MatMul"
    ]
    product_of_shares = product.output[0]
    place = list(model.graph.node).index(product)
    model.graph.node.insert(place, helper.make_node("Abs", [product.input[1]], ["positive"]))
    model.graph.node.insert(place, helper.make_node("Sigmoid", [product.input[0]], ["shares"]))
    product.input[0], product.input[1] = "shares", "positive"
    assert product.output[0] == product_of_shares
    del model.graph.value_info[:]
    onnx.save(model, path)
    folder = build_engines(resaved(bundle, path), OPTIONS)
    assert BuildRecord.read(folder).fused_attention == {"fused": 3, "layers": 4}
    (message,) = [each for each in caplog.messages if "attention" in each]
    assert message.startswith("3 of 4 attention layers of text.plan became one kernel each")
