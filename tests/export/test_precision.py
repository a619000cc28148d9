"""FP16 graphs: what is narrow and what is not, and activations at which naive FP16 breaks and ours does not."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from hvpnet import HVPNeT
from hvpnet.modeling.text_encoder import encode_text
from hvpnet_export import ExportError
from hvpnet_export.graphs import NORMALISED, export_text, text_graph
from hvpnet_export.precision import to_precision

pytestmark = pytest.mark.heavy

FULL, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
INTEGER, BYTE = onnx.TensorProto.INT64, onnx.TensorProto.UINT8
VARIANTS = [("ner", "full"), ("re", "full"), ("ner", "1t3"), ("ner", "text_only")]


def types(path: Path) -> tuple[Any, dict[str, int]]:
    """The graph, and the element type of every value in it."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return graph, found | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("kind", VARIANTS, ids="-".join)
def test_products_are_half_and_the_rest_is_not(bundle_of: Callable[..., Path], kind: tuple[str, str]) -> None:
    folder = bundle_of(*kind, precisions=("fp32", "fp16")) / "onnx" / "fp16"
    pictures = kind[1] != "text_only"
    if pictures:
        graph, type_of = types(folder / "vision.onnx")
        assert {value.name: type_of[value.name] for value in graph.input} == {"images": BYTE}
        assert type_of[NORMALISED] == FULL
        assert {value.name: type_of[value.name] for value in graph.output} == {"prefix": HALF}
        products = {type_of[node.output[0]] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
        assert products == {HALF}
    graph, type_of = types(folder / "text.onnx")
    expected = {"input_ids": INTEGER, "attention_mask": INTEGER} | ({"prefix": HALF} if pictures else {})
    if kind[0] == "re":
        expected |= {"head_index": INTEGER, "tail_index": INTEGER}
    assert {value.name: type_of[value.name] for value in graph.input} == expected
    assert [type_of[value.name] for value in graph.output] == [FULL]
    found = {op: Counter(type_of[node.output[0]] for node in graph.node if node.op_type == op) for op in OPERATORS}
    layers = 4
    assert found["Softmax"] == {FULL: layers}
    assert found["LayerNormalization"] == {FULL: 2 * layers + 1}
    assert found["Gelu"] == {HALF: layers}
    products = found["MatMul"] + found["Gemm"]
    assert products == {HALF: 8 * layers, FULL: 1}  # six linear layers and two of attention; the classifier
    assert sum(found["Cast"].values()) <= 6 * layers + 4


OPERATORS = ("Softmax", "LayerNormalization", "Gelu", "MatMul", "Gemm", "Cast")


@torch.no_grad()
def large_embeddings(model: HVPNeT) -> None:
    """Each table fits FP16, their sum does not."""
    embeddings = model.bert.embeddings
    embeddings.word_embeddings.weight[:, 0] = 4e4
    embeddings.token_type_embeddings.weight[:, 0] = 4e4


@torch.no_grad()
def large_residual(model: HVPNeT) -> None:
    """One channel grows from layer to layer, as it does in large trained transformers."""
    for layer in model.bert.encoder.layer:
        for output in (layer.attention.output, layer.output):
            output.dense.bias[0] = 4e4
            output.LayerNorm.weight[0] = 2e4 / model.config.bert.hidden_size**0.5 * 2
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            linear.weight[:, 0] = 0  # only the residual stream carries it
        layer.intermediate.dense.weight[:, 0] = 0
    model.fc.weight[:, 0] = 0


@torch.no_grad()
def large_scores(model: HVPNeT) -> None:
    """Keys so large that scores fit FP16 only once the query is scaled."""
    for layer in model.bert.encoder.layer:
        query, key = layer.attention.self.query, layer.attention.self.key
        size = layer.attention.self.attention_head_size
        query.weight.zero_()
        query.bias.fill_(200)
        key.weight.mul_(2)
        key.bias.fill_(1.5 * 65504 / size / 200)


def naive_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, _dropout: float) -> Tensor:
    """As published: products first, then the scale."""
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + mask.to(query.dtype)
    return torch.softmax(scores, dim=-1) @ value


@pytest.mark.parametrize("amplify", [large_embeddings, large_residual, large_scores])
def test_activations_at_which_naive_fp16_breaks(random_model: Any, tmp_path: Path, amplify: Any) -> None:
    import onnxruntime

    model = random_model("ner", "text_only")
    amplify(model)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    ids = torch.randint(1, 60, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    naive = copy.deepcopy(model).half()
    with torch.no_grad():
        eager = model(ids, mask)
        broken = encode_text(naive.bert, ids, mask, None, naive_attention)
        narrow = text_graph(to_precision(model, "fp16")).eval()(ids, mask)
    assert not broken.isfinite().all()
    export_text(to_precision(model, "fp16"), tmp_path / "text.onnx", "fp16")
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    (graph,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    tokens = mask.bool()
    assert eager[tokens].abs().max() > 0.5  # a bound of 0.1 says something
    for found in (narrow.numpy(), graph):
        assert np.abs(found - eager.numpy())[tokens.numpy()].max() < 0.1


def test_a_weight_beyond_fp16_is_named(random_model: Any) -> None:
    model = random_model()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = 70_000
    with pytest.raises(ExportError, match=r"bert.encoder.layer.1.output.dense.weight holds values beyond 65504"):
        to_precision(model, "fp16")


def test_the_model_itself_is_left_as_it_was(random_model: Any) -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    to_precision(model, "fp16")
    assert to_precision(model, "fp32") is model
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
