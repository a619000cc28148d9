"""The gate: graphs that differ from the eager model are refused, others pass, and the report tells the truth."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from rewrite import rewrite

from hvpnet import HVPNeT
from hvpnet_export import ExportError, ParityError, ParityReport, compare
from hvpnet_export.parity import TOLERANCES, Disagreement, compare_decoder
from hvpnet_export.parity_cases import BLANK, ParityCase, Shape, default_shapes, random_cases
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BundleError

pytestmark = pytest.mark.heavy

TEXT_ONLY: dict[str, Any] = {"task": "ner", "variant": "text_only"}
FULL: dict[str, Any] = {"task": "ner", "variant": "full", "layers": 2}
RELATIONS: dict[str, Any] = {"task": "re", "variant": "flat", "head": "markers"}

REPORT = ParityReport(
    tolerance=1e-3,
    ties=1e-3,
    agreement=1,
    cases=5,
    decisions=100,
    prefix_error=1e-6,
    output_error=1e-5,
    disagreements=(),
)

Edit = Callable[[Any], None]


@pytest.fixture
def copy_of(graphs_of: Any, tmp_path: Path) -> Callable[..., tuple[HVPNeT, Path]]:
    """A model and a copy of its graphs and arrays to be damaged."""

    def make(**kind: Any) -> tuple[HVPNeT, Path]:
        exported = graphs_of(**kind)
        graph_in(tmp_path, "text").parent.mkdir(parents=True)
        for graph in exported.graphs:
            shutil.copy(graph, graph_in(tmp_path, graph.stem))
        for arrays in exported.folder.glob("*.npz"):
            shutil.copy(arrays, tmp_path)
        return exported.model, tmp_path

    return make


def graph_in(bundle: Path, name: str) -> Path:
    return bundle / "onnx" / "fp32" / f"{name}.onnx"


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One case instead of five, where one shows it."""
    monkeypatch.setattr("hvpnet_export.parity_cases.default_shapes", lambda _limit: (Shape(length=6, objects=(1, 0)),))


def edit_weight(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Rewrite one initializer of a graph."""
    graph = onnx.load(path)
    (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == name]
    values = change(numpy_helper.to_array(tensor).copy()).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(graph, path)


def raised_by(amount: float) -> Callable[[Any], Any]:
    return lambda values: values + amount


# Graphs that are right


@pytest.mark.parametrize("kind", [TEXT_ONLY, FULL], ids=["text_only", "full"])
def test_exported_graphs_pass(graphs_of: Any, kind: dict[str, Any]) -> None:
    exported = graphs_of(**kind)
    assert exported.graphs
    report = compare(exported.model, exported.folder)
    assert report.passed
    assert report.require() is report
    assert (report.tolerance, report.agreement) == (TOLERANCES["fp32"], 1)
    assert report.disagreements == ()
    assert report.output_error < 1e-4
    assert (report.prefix_error == 0) == (kind == TEXT_ONLY)
    assert report.prefix_error < 1e-4
    shapes = default_shapes(exported.model.config.max_length)
    assert report.cases == len(shapes)
    # One decision a token; the rows of a case shorten by five.
    lengths = [max(3, shape.length - 5 * row) for shape in shapes for row in range(len(shape.objects))]
    assert report.decisions == sum(lengths)


def test_exported_relation_graphs_pass(graphs_of: Any, few_pictures: None) -> None:
    exported = graphs_of(**RELATIONS)
    assert exported.graphs
    report = compare(exported.model, exported.folder)
    assert report.passed
    assert (report.cases, report.decisions) == (1, 2)
    assert 0 < max(report.prefix_error, report.output_error) < 1e-4


def test_same_seed_same_report(graphs_of: Any) -> None:
    exported = graphs_of(**TEXT_ONLY)
    assert exported.text
    assert compare(exported.model, exported.folder) == compare(exported.model, exported.folder)
    assert (
        compare(exported.model, exported.folder, cases=random_cases(exported.model, seed=1)).output_error
        != compare(exported.model, exported.folder).output_error
    )


@pytest.mark.parametrize("limit", [3, 24, 80, 128, 512])
def test_cases_cover_lengths_batches_and_objects(limit: int) -> None:
    shapes = default_shapes(limit)
    assert max(shape.length for shape in shapes) == limit
    assert min(shape.length for shape in shapes) == 3
    assert {len(shape.objects) for shape in shapes} == {1, 2, 3, 5}
    assert {count for shape in shapes for count in shape.objects} == {0, 1, 2, 3}


# Graphs that are wrong


@pytest.mark.parametrize(("amount", "passes"), [(2e-4, True), (-2e-4, True), (4e-3, False), (-4e-3, False)])
def test_a_shifted_output_weight(copy_of: Any, amount: float, passes: bool) -> None:
    model, folder = copy_of(**TEXT_ONLY)
    edit_weight(graph_in(folder, "text"), "fc.bias", raised_by(amount))
    report = compare(model, folder)
    assert report.passed == passes
    assert report.output_error == pytest.approx(abs(amount), rel=0.1)  # there are emissions below 1
    assert report.prefix_error == 0


@pytest.mark.parametrize(("amount", "passes"), [(1e-4, True), (4e-3, False)])
def test_a_shifted_prefix_weight(copy_of: Any, few_pictures: None, amount: float, passes: bool) -> None:
    model, folder = copy_of(**FULL)
    edit_weight(graph_in(folder, "vision"), "model.encoder_conv.2.bias", raised_by(amount))
    report = compare(model, folder)
    assert amount < report.prefix_error < 10 * amount  # the gates feel it too
    assert (report.prefix_error <= report.tolerance) == passes
    assert report.output_error > 1e-6


def test_tolerance_is_the_precisions(copy_of: Any) -> None:
    model, folder = copy_of(**TEXT_ONLY)
    edit_weight(graph_in(folder, "text"), "fc.bias", raised_by(2e-2))
    shutil.copytree(folder / "onnx" / "fp32", folder / "onnx" / "fp16")
    assert compare(model, folder, "fp16").passed
    assert not compare(model, folder, "fp32").passed


def test_large_values_are_compared_relatively(copy_of: Any) -> None:
    model, folder = copy_of(**TEXT_ONLY)
    edit_weight(graph_in(folder, "text"), "fc.bias", lambda bias: bias + 1000 + 0.4)
    shifted = HVPNeT(model.config)
    shifted.load_state_dict(model.state_dict())
    with torch.no_grad():
        shifted.fc.bias.add_(1000)
    assert compare(shifted.eval(), folder).output_error == pytest.approx(4e-4, rel=0.1)


def test_other_decisions_are_listed(copy_of: Any) -> None:
    model, folder = copy_of(**TEXT_ONLY)

    def favour_the_fourth(bias: Any) -> Any:
        bias[4] += 50
        return bias

    edit_weight(graph_in(folder, "text"), "fc.bias", favour_the_fourth)
    report = compare(model, folder)
    assert not report.passed
    first = report.disagreements[0]
    assert set(first.graph) == {4}
    assert set(first.eager) != {4}
    assert len(first.graph) == len(first.eager) == 3
    assert first.margin > report.tolerance
    with pytest.raises(ParityError, match=rf"outputs within .* {report.differing} of {report.decisions} decisions"):
        report.require()


def test_vision_of_another_model(copy_of: Any, few_pictures: None, random_model: Any) -> None:
    _, folder = copy_of(**FULL)
    other = random_model("ner", "full", seed=1, bert={"num_hidden_layers": 2})
    report = compare(other, folder)
    assert not report.passed
    assert report.prefix_error > 0.1


def test_nan_in_a_weight(copy_of: Any) -> None:
    model, folder = copy_of(**TEXT_ONLY)

    def poison(bias: Any) -> Any:
        bias[3] = np.nan
        return bias

    edit_weight(graph_in(folder, "text"), "fc.bias", poison)
    report = compare(model, folder)
    assert not report.passed
    assert report.output_error == pytest.approx(np.finfo(np.float32).max)
    json.dumps(report.to_dict(), allow_nan=False)
    with pytest.raises(ParityError):
        report.require()


def test_infinity_in_a_weight(copy_of: Any) -> None:
    model, folder = copy_of(**TEXT_ONLY)
    edit_weight(graph_in(folder, "text"), "fc.bias", lambda bias: bias + np.inf)
    report = compare(model, folder)
    assert not report.passed
    json.dumps(report.to_dict(), allow_nan=False)


def write_constant(path: Path, model: Any, output: str, shape: list[str | int]) -> None:
    """A graph with the right inputs that answers zeros of this shape, [B, ...] or [B, T, ...]."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in ("input_ids", "mask")]
    inputs[1].name = "attention_mask"
    width = numpy_helper.from_array(np.array(shape[-1:], np.int64), "width")
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["sizes"], start=0, end=len(shape) - 1),
        helper.make_node("Concat", ["sizes", "width"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], [output]),
    ]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "zeros", inputs, outputs, [width])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize("shape", [["b", "t", 12], ["b", "t", 14], ["b", 13]])
def test_wrong_output_shape(graphs_of: Any, tmp_path: Path, shape: list[Any]) -> None:
    model = graphs_of(**TEXT_ONLY).model
    graph_in(tmp_path, "text").parent.mkdir(parents=True)
    write_constant(graph_in(tmp_path, "text"), model, "emissions", shape)
    with pytest.raises(BundleError, match=r"emissions is float32 \[.*\], the manifest's model has .*any, any, 13\]"):
        compare(model, tmp_path)


def test_wrong_prefix_shape(graphs_of: Any, copy_of: Any, tmp_path: Path) -> None:
    model, folder = copy_of(**FULL)
    shutil.copy(graphs_of(**RELATIONS).vision, graph_in(folder, "vision"))  # of one BERT layer
    with pytest.raises(BundleError, match=r"vision.onnx: prefix is float32 \[any, 1, 2,") as caught:
        compare(model, folder)
    assert "\n" not in str(caught.value)


def test_wrong_inputs(graphs_of: Any, copy_of: Any) -> None:
    model, folder = copy_of(**RELATIONS)
    shutil.copy(graphs_of(**TEXT_ONLY).text, graph_in(folder, "text"))
    with pytest.raises(BundleError, match=r"text\.onnx has the inputs attention_mask, input_ids, the"):
        compare(model, folder)


@pytest.mark.parametrize("content", [None, b"", b"no graph", b"\x08\x0a\x12\xff"])
def test_files_that_are_no_graph(graphs_of: Any, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        graph_in(tmp_path, "text").parent.mkdir(parents=True)
        graph_in(tmp_path, "text").write_bytes(content)
    with pytest.raises(BundleError, match=r"text.onnx") as caught:
        compare(graphs_of(**TEXT_ONLY).model, tmp_path)
    assert "\n" not in str(caught.value)


# The verdict


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({}, True),
        ({"prefix_error": 1e-3, "output_error": 1e-3}, True),
        ({"prefix_error": 1.001e-3}, False),
        ({"output_error": 1.001e-3}, False),
        ({"output_error": math.nan}, False),
        ({"prefix_error": math.nan}, False),
        ({"output_error": math.inf}, False),
        ({"margins": (0.0,)}, True),
        ({"margins": (1e-3, 5e-4)}, True),
        ({"margins": (0.0, 2e-3)}, False),
        ({"margins": (math.nan,)}, False),
        ({"margins": (5e-4,), "ties": 0.0}, False),  # as for INT8: values may be far off, decisions may not
        ({"margins": (5e-4,), "ties": 0.0, "agreement": 0.98, "output_error": 2.0, "tolerance": 2.0}, True),
        ({"margins": (5e-4,) * 3, "ties": 0.0, "agreement": 0.98, "output_error": 2.0, "tolerance": 2.0}, False),
    ],
)
def test_verdict(changes: dict[str, Any], passes: bool) -> None:
    margins = changes.pop("margins", ())
    found = tuple(Disagreement(case=0, row=0, eager=[1], graph=[2], margin=margin) for margin in margins)
    report = replace(REPORT, disagreements=found, **changes)
    assert report.passed is passes
    assert report.to_dict()["passed"] is passes
    if passes:
        assert report.require() is report
    else:
        with pytest.raises(ParityError, match="the graphs differ too much") as caught:
            report.require()
        assert isinstance(caught.value, ExportError)
        assert "\n" not in str(caught.value)


def test_report_as_json() -> None:
    found = Disagreement(case=1, row=2, eager=[1, 3], graph=[1, 4], margin=2e-4)
    assert json.loads(json.dumps(replace(REPORT, disagreements=(found,)).to_dict(), allow_nan=False)) == {
        "passed": True,
        "differing": 1,
        "tolerance": 1e-3,
        "ties": 1e-3,
        "agreement": 1,
        "cases": 5,
        "decisions": 100,
        "prefix_error": 1e-6,
        "output_error": 1e-5,
        "disagreements": [{"case": 1, "row": 2, "eager": [1, 3], "graph": [1, 4], "margin": 2e-4}],
    }


def test_a_tie_may_fall_either_way(copy_of: Any) -> None:
    """Two relations that the eager model cannot tell apart: the graph leans to the other one by less than the bound."""
    model, folder = copy_of(**TEXT_ONLY)
    twins = HVPNeT(model.config)
    twins.load_state_dict(model.state_dict())
    with torch.no_grad():
        for tensor in (twins.fc.weight, twins.fc.bias, twins.crf.start_transitions, twins.crf.end_transitions):
            tensor[5] = tensor[2]
        twins.crf.transitions[5] = twins.crf.transitions[2]
        twins.crf.transitions[:, 5] = twins.crf.transitions[:, 2]
        twins.fc.bias[[2, 5]] += 20  # one of the two wins everywhere

    def lean(bias: Any) -> Any:
        bias[5] = bias[2]
        bias[[2, 5]] += 20
        bias[5] += 1e-4
        return bias

    edit_weight(graph_in(folder, "text"), "fc.bias", lean)
    weights = [
        tensor.name for tensor in onnx.load(graph_in(folder, "text")).graph.initializer if list(tensor.dims) == [32, 13]
    ]
    edit_weight(graph_in(folder, "text"), weights[0], lambda weight: np.concatenate(
        [weight[:, :5], weight[:, 2:3], weight[:, 6:]], axis=1
    ))  # fmt: skip
    report = compare(twins.eval(), folder)
    assert report.disagreements
    assert all(set(found.eager) == {2} and set(found.graph) == {5} for found in report.disagreements)
    assert all(abs(found.margin) < 1e-3 for found in report.disagreements)
    assert report.passed


def test_margin_is_the_difference_of_the_scores(copy_of: Any, few_pictures: None) -> None:
    model, folder = copy_of(**RELATIONS)

    def favour_the_last(bias: Any) -> Any:
        bias[4] += 100
        return bias

    edit_weight(graph_in(folder, "text"), "classifier.bias", favour_the_last)
    report = compare(model, folder)
    assert report.disagreements
    for found in report.disagreements:
        assert found.graph == [4]
        assert found.eager != [4]
        assert 0 < found.margin < 100
    assert report.output_error > 1


def test_shape_is_plain_data() -> None:
    assert Shape(length=3, objects=(0, 1)) == Shape(3, (0, 1))


# The cases


@pytest.mark.parametrize(
    "kind", [FULL, {"variant": "only_obj"}, TEXT_ONLY, RELATIONS], ids=lambda kind: kind["variant"]
)
def test_random_cases(graphs_of: Any, kind: dict[str, Any]) -> None:
    """Every picture stands at one place, in order, and blanks come last in a tweet; texts end where the mask does."""
    config = graphs_of(**kind).model.config
    shapes = default_shapes(config.max_length)
    for case, shape in zip(random_cases(graphs_of(**kind).model), shapes, strict=True):
        batch = len(shape.objects)
        assert case.slots.shape == (batch, config.pictures)
        whole = int(config.pictures == 4)
        real = [count + whole if config.pictures else 0 for count in shape.objects]
        assert (case.slots != BLANK).sum(1).tolist() == real
        assert all(slots[:count].min(initial=0) >= 0 for slots, count in zip(case.slots.numpy(), real, strict=True))
        assert case.slots[case.slots != BLANK].tolist() == list(range(sum(real)))
        if config.pictures:
            assert case.pixels is not None
            assert (case.pixels.dtype, case.pixels.shape) == (torch.uint8, (sum(real), 224, 224, 3))
        else:
            assert case.pixels is None
        ids, mask = case.text["input_ids"], case.text["attention_mask"]
        assert ids.shape == mask.shape == (batch, shape.length)
        assert torch.equal(ids != 0, mask == 1)
        assert mask.sum(1).tolist() == [max(3, shape.length - 5 * row) if row else shape.length for row in range(batch)]
        assert set(case.text) - {"input_ids", "attention_mask"} == (
            {"head_index", "tail_index"} if config.task == "re" else set()
        )


def test_prefixes_are_gathered_by_place() -> None:
    prefixes, blank = torch.tensor([[1.0, 1], [2, 2]]), torch.tensor([9.0, 9])
    case = ParityCase(torch.zeros(2, 224, 224, 3, dtype=torch.uint8), torch.tensor([[0, BLANK], [1, 0]]), {})
    assert case.gather(prefixes, blank)[..., 0].tolist() == [[1, 9], [2, 1]]
    case = ParityCase(torch.zeros(0, 224, 224, 3, dtype=torch.uint8), torch.tensor([[BLANK, BLANK]]), {})
    assert case.gather(prefixes[:0], blank)[..., 0].tolist() == [[9, 9]]


# The blank picture


@pytest.mark.parametrize(("amount", "passes"), [(1e-4, True), (4e-3, False)])
def test_a_shifted_blank(copy_of: Any, few_pictures: None, amount: float, passes: bool) -> None:
    model, folder = copy_of(**FULL)
    as_it_was = compare(model, folder)
    with np.load(folder / "blank.npz", allow_pickle=False) as arrays:
        prefix = arrays["prefix"]
    np.savez(folder / "blank.npz", prefix=prefix + np.float32(amount))
    report = compare(model, folder)
    assert (report.prefix_error <= report.tolerance) == passes
    assert report.passed <= passes
    assert 0.5 * amount < report.prefix_error < 1.5 * amount
    assert report.output_error != as_it_was.output_error  # the text graph reads it
    assert report.output_error != report.prefix_error  # which is said apart


def test_one_value_of_the_blank_that_differs(copy_of: Any, few_pictures: None) -> None:
    model, folder = copy_of(**FULL)
    with np.load(folder / "blank.npz", allow_pickle=False) as arrays:
        prefix = arrays["prefix"]
    for value in (prefix[1, 0, 5] + 1, np.nan):
        prefix[1, 0, 5] = value
        np.savez(folder / "blank.npz", prefix=prefix)
        report = compare(model, folder)
        assert not report.passed
        with pytest.raises(ParityError, match="the graphs differ too much"):
            report.require()


def test_a_blank_of_another_model(copy_of: Any, graphs_of: Any) -> None:
    model, folder = copy_of(**FULL)
    shutil.copy(graphs_of(**RELATIONS).folder / "blank.npz", folder)  # of one BERT layer
    with pytest.raises(BundleError, match=r"prefix is float32 \[1, 2, 128\], the graphs read float32 \[2, 2, 128\]"):
        compare(model, folder)


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_blank_that_is_no_array(copy_of: Any, content: bytes | None) -> None:
    model, folder = copy_of(**FULL)
    (folder / "blank.npz").unlink()
    if content is not None:
        (folder / "blank.npz").write_bytes(content)
    with pytest.raises(BundleError, match=r"blank\.npz(: .*; export the checkpoint again| is missing)"):
        compare(model, folder)


def test_cases_without_pictures_are_compared(graphs_of: Any) -> None:
    """Tweets without any picture read blanks only; the vision graph has nothing to do."""
    exported = graphs_of(**FULL)
    assert exported.graphs
    text = next(random_cases(exported.model)).text
    pixels = torch.empty(0, 224, 224, 3, dtype=torch.uint8)
    report = compare(exported.model, exported.folder, cases=[ParityCase(pixels, torch.full((1, 4), BLANK), text)])
    assert report.passed
    assert report.cases == 1
    assert report.decisions == 3
    assert 0 < report.output_error < 1e-4


# The decoder


def test_decoder_of_the_model(ner_model: HVPNeT, ner_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))
    compare_decoder(ner_model, Bundle.load(folder))
    arrays = {name: parameter.detach().numpy() for name, parameter in ner_model.crf.named_parameters()}
    arrays["end_transitions"] = np.nextafter(arrays["end_transitions"], np.float32(9))
    np.savez(folder / "decoder.npz", **arrays)
    rewrite(folder, "decoder.npz", (folder / "decoder.npz").read_bytes())
    with pytest.raises(ParityError, match="has other end_transitions than the checkpoint"):
        compare_decoder(ner_model, Bundle.load(folder))
