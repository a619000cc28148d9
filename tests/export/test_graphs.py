"""The two ONNX graphs answer as the eager model does, whatever the sizes, and have the interface of the design."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
import torch
from normalised import behind_normalised, normalised_by

from hvpnet import HVPNeT, ResNetConfig
from hvpnet.modeling.visual_prefix import ImageModel, blank_picture, normalise
from hvpnet_export import ExportError
from hvpnet_export.graphs import export_text, export_vision, fold_batch_norm, text_graph

pytestmark = pytest.mark.heavy

MODELS: list[dict[str, Any]] = [
    {"task": "ner", "variant": "full", "layers": 2},
    {"task": "re", "variant": "flat", "head": "markers"},
    {"task": "ner", "variant": "1t3", "layers": 2},
    {"task": "ner", "variant": "only_obj"},
    {"task": "re", "variant": "text_only", "head": "cls"},
    {"task": "ner", "variant": "text_only"},
]
VISION = MODELS[:3]  # the vision graph of only_obj is that of full
TEXT = MODELS[:2] + MODELS[3:]  # the text graph of 1t3 is that of full
WHOLE = [*MODELS[:2], MODELS[-1]]

BATCH_AND_LENGTH = [(1, 1), (1, 24), (2, 2), (3, 7), (7, 24), (16, 5)]  # 24 is the models' limit


def name_of(kind: dict[str, Any]) -> str:
    return "-".join(str(value) for value in kind.values())


def session(path: Path, level: Any = ort.GraphOptimizationLevel.ORT_ENABLE_ALL) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(graph: Any, inputs: dict[str, Any]) -> Any:
    (output,) = graph.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return output


@pytest.mark.parametrize("kind", VISION, ids=name_of)
def test_vision_answers_as_eager(graphs_of: Any, request_for: Any, kind: dict[str, Any]) -> None:
    exported = graphs_of(**kind)
    graph = session(exported.vision)
    for pictures in (1, 2, 5):
        pixels, _ = request_for(exported.model, pictures, 1, 2)
        pixels[-1] = 0  # a black picture
        with torch.no_grad():
            eager = exported.model.encode_pictures(normalise(pixels)).numpy()
        np.testing.assert_allclose(run(graph, {"images": pixels}), eager, rtol=1e-4, atol=1e-4)
        assert np.abs(eager).max() > 0.1  # not compared with nothing


@pytest.mark.parametrize("kind", VISION, ids=name_of)
def test_vision_behind_its_first_nodes_answers_as_eager(graphs_of: Any, kind: dict[str, Any]) -> None:
    """Any normalised pictures, and the blank one, which no pixels become; blank.npz holds the prefix of that one."""
    exported = graphs_of(**kind)
    graph = behind_normalised(exported.vision)
    for pictures in (1, 2, 5):
        images = torch.randn(pictures, 3, 224, 224, generator=torch.Generator().manual_seed(pictures))
        images[-1] = blank_picture()[0]
        with torch.no_grad():
            eager = exported.model.encode_pictures(images).numpy()
        found = run(graph, {"normalised": images})
        np.testing.assert_allclose(found, eager, rtol=1e-4, atol=1e-4)
        assert np.abs(eager).max() > 0.1
    with np.load(exported.folder / "blank.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(found[-1], arrays["prefix"], rtol=1e-4, atol=1e-4)


def test_every_value_is_normalised_as_by_torchvision(graphs_of: Any) -> None:
    """All 256 values in each channel, in every bit."""
    from torchvision import transforms

    pixels = np.arange(2 * 224 * 224 * 3).reshape(2, 224, 224, 3) // 3  # every value, the same in the three channels
    pixels = np.add(pixels, [0, 85, 170]).astype(np.uint8)  # apart
    steps = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    expected = torch.stack([transforms.Compose(steps)(picture) for picture in pixels]).numpy()
    assert [len(np.unique(expected[:, channel])) for channel in range(3)] == [256, 256, 256]
    found = normalised_by(graphs_of(**MODELS[0]).vision, pixels)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", TEXT, ids=name_of)
def test_text_answers_as_eager(graphs_of: Any, request_for: Any, kind: dict[str, Any]) -> None:
    exported = graphs_of(**kind)
    graph = session(exported.text)
    for batch, length in BATCH_AND_LENGTH:
        _, text = request_for(exported.model, 1, batch, length)
        with torch.no_grad():
            eager = exported.model(**text)
        output = run(graph, text)
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, eager.numpy(), rtol=1e-4, atol=1e-4)
        chosen = exported.model.decode(torch.from_numpy(output), text["attention_mask"])
        assert chosen == exported.model.decode(eager, text["attention_mask"])
    assert np.ptp(output, axis=0).max() > 0.1  # a model that always says the same would prove nothing


@pytest.mark.parametrize("kind", MODELS[:2], ids=name_of)
def test_graphs_are_right_before_onnx_runtime_optimises_them(
    graphs_of: Any, request_for: Any, kind: dict[str, Any]
) -> None:
    exported = graphs_of(**kind)
    images, text = request_for(exported.model, 2, 3, 7)
    for path, inputs in ((exported.vision, {"images": images}), (exported.text, text)):
        plain, optimised = (
            run(session(path, level), inputs)
            for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
        )
        np.testing.assert_allclose(plain, optimised, rtol=1e-4, atol=1e-4)


# The interface


UINT8, INT64, FLOAT32 = "tensor(uint8)", "tensor(int64)", "tensor(float)"


def signature(path: Path) -> list[list[Any]]:
    """Name, type and shape of every input, and of every output."""
    graph = session(path)
    return [[(arg.name, arg.type, arg.shape) for arg in args] for args in (graph.get_inputs(), graph.get_outputs())]


@pytest.mark.parametrize("kind", VISION, ids=name_of)
def test_interface_of_vision(graphs_of: Any, kind: dict[str, Any]) -> None:
    inputs, outputs = signature(graphs_of(**kind).vision)
    assert inputs == [("images", UINT8, ["pictures", 224, 224, 3])]
    assert outputs == [("prefix", FLOAT32, ["pictures", kind.get("layers", 1), 2, 4 * 32])]


@pytest.mark.parametrize("kind", TEXT, ids=name_of)
def test_interface_of_text(graphs_of: Any, kind: dict[str, Any]) -> None:
    inputs, outputs = signature(graphs_of(**kind).text)
    expected: list[Any] = [(name, INT64, ["batch", "length"]) for name in ("input_ids", "attention_mask")]
    pictures = {"text_only": 0, "only_obj": 3}.get(kind["variant"], 4)
    if pictures:
        expected.append(("prefix", FLOAT32, ["batch", pictures, kind.get("layers", 1), 2, 4 * 32]))
    if kind.get("head") == "markers":
        expected += [(name, INT64, ["batch"]) for name in ("head_index", "tail_index")]
    assert inputs == expected
    result = ("emissions", FLOAT32, ["batch", "length", 13]) if kind["task"] == "ner" else None
    assert outputs == [result or ("logits", FLOAT32, ["batch", 5])]


@pytest.mark.parametrize("kind", WHOLE, ids=name_of)
def test_what_is_in_the_files(graphs_of: Any, kind: dict[str, Any]) -> None:
    for path in graphs_of(**kind).graphs:
        loaded = onnx.load(path)
        onnx.checker.check_model(loaded, full_check=True)
        graph = loaded.graph
        assert [(opset.domain, opset.version) for opset in loaded.opset_import] == [("", 20)]
        operators = {node.op_type for node in graph.node}
        assert not operators & {"BatchNormalization", "Attention", "Erf", "If", "Loop"}
        used = {name for node in graph.node for name in node.input}
        assert {tensor.name for tensor in graph.initializer} <= used  # no weight that the graph does not read
        assert not any(tensor.external_data for tensor in graph.initializer)
        assert not any(node.metadata_props or node.doc_string for node in graph.node)  # paths of this machine


def test_operators_that_optimisers_fuse(graphs_of: Any) -> None:
    exported = graphs_of(**MODELS[0])
    operators = [node.op_type for node in onnx.load(exported.text).graph.node]
    layers = exported.model.config.bert.num_hidden_layers
    assert operators.count("Softmax") == layers  # one attention a layer
    assert operators.count("LayerNormalization") == 2 * layers + 1
    assert operators.count("Gelu") == layers
    operators = [node.op_type for node in onnx.load(exported.vision).graph.node]
    assert operators.count("LeakyRelu") == operators.count("Softmax") == 1  # the gates of all layers in one product


def test_first_nodes_of_vision(graphs_of: Any) -> None:
    """TensorRT takes uint8 only where a cast follows it; ONNX Runtime subtracts fast where channels come first."""
    nodes = list(onnx.load(graphs_of(**MODELS[0]).vision).graph.node)
    assert [node.op_type for node in nodes[:6]] == ["Cast", "Transpose", "Div", "Sub", "Div", "Conv"]
    assert [node.input[0] for node in nodes[:6]] == ["images", *[node.output[0] for node in nodes[:5]]]
    assert sum("images" in node.input for node in nodes) == 1
    assert nodes[4].output[0] == "normalised"


# The model that is exported


@pytest.mark.parametrize("kind", WHOLE, ids=name_of)
def test_exporting_leaves_the_model_as_it_was(graphs_of: Any, kind: dict[str, Any]) -> None:
    exported = graphs_of(**kind)
    assert all(path.is_file() for path in exported.graphs)
    after = exported.model.state_dict()
    assert list(after) == list(exported.before)
    assert all(torch.equal(after[name], tensor) for name, tensor in exported.before.items())
    assert not any(module.training for module in exported.model.modules())
    assert all(parameter.requires_grad for parameter in exported.model.parameters())


@pytest.mark.parametrize(
    "resnet",
    [ResNetConfig("basic", (2, 1, 1, 1)), ResNetConfig("bottleneck", (1, 2, 1, 1), groups=4, width_per_group=8)],
    ids=["basic", "bottleneck"],
)
def test_folded_batch_norm_equals_unfolded(random_model: Any, resnet: ResNetConfig) -> None:
    image_model = random_model(resnet=resnet).image_model.double()
    folded = fold_batch_norm(copy.deepcopy(image_model))
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in image_model.modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), image_model(images), rtol=1e-10, atol=1e-10)


def test_folding_takes_only_the_convolution_right_before() -> None:
    norm_first = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU()).eval()
    fold_batch_norm(norm_first)
    assert isinstance(norm_first[0], torch.nn.BatchNorm2d)
    apart = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(3)).eval()
    fold_batch_norm(apart)
    assert isinstance(apart[2], torch.nn.BatchNorm2d)


def test_plain_attention_equals_fused(random_model: Any, request_for: Any) -> None:
    model: HVPNeT = random_model(bert={"num_hidden_layers": 3})
    _, text = request_for(model, 1, 3, 9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(text_graph(model)(**text), model(**text), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)  # the model stays as published


def test_queries_come_out_of_their_projection_scaled(random_model: Any) -> None:
    """Queries are scaled by 1 / sqrt(size) in weights and bias; every other weight is the same memory."""
    model: HVPNeT = random_model("ner", "text_only", bert={"hidden_size": 32, "num_attention_heads": 2})
    scaled = {
        f"bert.encoder.layer.{layer}.attention.self.query.{weight}" for layer in (0, 1) for weight in ("weight", "bias")
    }
    own = dict(model.named_parameters())
    for name, weight in text_graph(model).named_parameters():
        if name in scaled:
            torch.testing.assert_close(weight, own[name] / 4, rtol=0, atol=0)  # heads of 16, so exactly
        else:
            assert weight is own[name]


@pytest.mark.parametrize("kind", TEXT[:1], ids=name_of)
def test_no_node_scales_the_scores(graphs_of: Any, kind: dict[str, Any]) -> None:
    graph = onnx.load(graphs_of(**kind).text).graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    attention = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(attention) == kind["layers"]
    for softmax in attention:
        scores = makers[softmax.input[0]]
        assert scores.op_type == "Add"
        product = makers[scores.input[0]]
        assert product.op_type == "MatMul"
        for side in product.input:  # back to the projections nothing computes but their bias
            node = makers[side]
            while node.op_type in ("Transpose", "Reshape", "Concat"):
                node = makers[node.input[-1 if node.op_type == "Concat" else 0]]
            assert node.op_type == "Add"
            assert constants & set(node.input)


# Failures


def test_graphs_too_large_for_one_file(graphs_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = graphs_of(**MODELS[-1])
    program = SimpleNamespace(model=onnx_ir.load(exported.text))
    monkeypatch.setattr("torch.onnx.export", lambda *_args, **_options: program)
    monkeypatch.setattr("hvpnet_export.graphs._PROTOBUF_LIMIT", 1000)
    with pytest.raises(ExportError, match=r"text.onnx would hold .* GiB of weights; an ONNX file holds at most 2"):
        export_text(exported.model, tmp_path / "text.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_traced(random_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def depends_on_values(self: ImageModel, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images

    monkeypatch.setattr(ImageModel, "forward", depends_on_values)
    with pytest.raises(ExportError, match=r"torch.onnx could not export vision.onnx: ") as caught:
        export_vision(random_model(), tmp_path / "vision.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
