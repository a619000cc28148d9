"""INT8 graphs: what is quantised and what is not, how far weights are off, and that answers hold."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

import hvpnet_export.quantise
from hvpnet import HVPNeT
from hvpnet.data import load_split
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import CalibrationData, ExportError, IncompleteError, ParityError, compare, export_bundle
from hvpnet_export.graphs import NORMALISED
from hvpnet_export.parity import AGREEMENT, TOLERANCES
from hvpnet_export.parity_cases import BLANK, example_cases, random_cases
from hvpnet_export.processor import adds_int8_in_16_bits
from hvpnet_export.quantise import quantise
from hvpnet_runtime import Bundle, Pipeline, Tweet
from hvpnet_runtime.bundle import QUANTISED, Precision

pytestmark = pytest.mark.heavy

LAYERS = 4  # of the tiny BERT
KINDS = [("ner", "full"), ("re", "full"), ("ner", "1t3"), ("ner", "flat"), ("ner", "text_only")]
every_precision = pytest.mark.parametrize("precision", ["int8", "int8_fp16"])


@pytest.fixture
def quantised(bundle_of: Callable[..., Path]) -> Callable[..., Path]:
    """A bundle with INT8 graphs and those that they are made of."""
    return lambda precision, *kind: bundle_of(*kind, precisions=(QUANTISED[precision], precision))


class Graph:
    """A graph whose nodes are asked where their inputs come from."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.made_by = {output: node for node in self.graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}

    def nodes(self, *types: str) -> list[Any]:
        return [node for node in self.graph.node if node.op_type in types]

    def is_quantised(self, node: Any) -> bool:
        """Every input but the bias comes from integers."""
        return all(name in self.made_by and self.made_by[name].op_type == "DequantizeLinear" for name in node.input[:2])

    def stored(self, name: str) -> Any:
        return numpy_helper.to_array(self.weights[name])

    def value(self, name: str) -> Any:
        """A weight, as the graph computes with it, and its scale per output channel."""
        _, scale, zero = self.made_by[name].input
        integers, scales = self.stored(self.made_by[name].input[0]), self.stored(scale).astype(np.float32)
        assert integers.dtype == np.int8
        assert not self.stored(zero).any()
        axis = next((attribute.i for attribute in self.made_by[name].attribute if attribute.name == "axis"), 1)
        shape = [1] * integers.ndim
        shape[axis] = -1
        assert scales.shape == (integers.shape[axis],)
        return integers * scales.reshape(shape), scales.reshape(shape)

    def smoothing(self, node: Any) -> Any:
        """What the rows of a linear layer's weight are multiplied by, because its input is divided by it."""
        if node.op_type == "Conv":
            return 1
        quantise = self.made_by[self.made_by[node.input[0]].input[0]]
        divide = self.made_by[quantise.input[0]]
        assert divide.op_type == "Mul"
        return 1 / self.stored(divide.input[1]).astype(np.float32)[:, None]


@every_precision
@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_what_is_quantised(quantised: Callable[..., Path], kind: tuple[str, str], precision: str) -> None:
    folder, on_cpu = quantised(precision, *kind) / "onnx" / precision, precision == "int8"
    if kind[1] != "text_only":
        vision = Graph(folder / "vision.onnx")
        convolutions = vision.nodes("Conv")
        assert len(convolutions) == 1 + 4 * 2 + 3  # a BasicBlock a stage, three of them with a projection
        assert all(vision.is_quantised(node) for node in convolutions)
        sums = [node for node in vision.nodes("Add") if vision.is_quantised(node)]
        assert len(sums) == (4 if on_cpu else 0)  # a residual sum a stage, and no bias of the projection
        rest = vision.nodes("MatMul", "Gemm", "Tanh", "Softmax", "LeakyRelu", "ReduceMean")
        assert rest
        assert not any(vision.is_quantised(node) for node in rest)
        (images,), (prefix,) = vision.graph.input, vision.graph.output
        assert images.type.tensor_type.elem_type == TensorProto.UINT8
        assert prefix.type.tensor_type.elem_type == (TensorProto.FLOAT if on_cpu else TensorProto.FLOAT16)
        normalised = [node.op_type for node in vision.graph.node if NORMALISED in node.input]
        assert normalised == ["QuantizeLinear" if on_cpu else "Cast"]
        assert not vision.is_quantised(vision.made_by[NORMALISED])
    text = Graph(folder / "text.onnx")
    products = text.nodes("MatMul", "Gemm")
    quantised = [node for node in products if text.is_quantised(node)]
    assert len(quantised) == 6 * LAYERS
    assert len(products) - len(quantised) == 2 * LAYERS + 1  # attention's products and the classifier
    rest = text.nodes("Softmax", "LayerNormalization", "Gelu", "Add")
    assert not any(text.is_quantised(node) for node in rest)
    types = {value.name: value.type.tensor_type.elem_type for value in (*text.graph.input, *text.graph.output)}
    assert {types.pop(name) for name in ("emissions", "logits") if name in types} == {TensorProto.FLOAT}
    if kind[1] != "text_only":
        assert types.pop("prefix") == (TensorProto.FLOAT if on_cpu else TensorProto.FLOAT16)
    assert set(types.values()) == {TensorProto.INT64}


def test_activations_are_symmetric_for_tensorrt(quantised: Callable[..., Path]) -> None:
    """And nothing is an integer of 32 bits, as the biases of CPUs are: TensorRT knows no such."""
    folder = quantised("int8_fp16", "ner") / "onnx" / "int8_fp16"
    for name in ("vision", "text"):
        graph = Graph(folder / f"{name}.onnx")
        for node in graph.nodes("QuantizeLinear", "DequantizeLinear"):
            zero = graph.stored(node.input[2])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert graph.stored(node.input[1]).dtype == np.float16


def test_activations_are_unsigned_for_cpus(quantised: Callable[..., Path]) -> None:
    """As the kernels of CPUs want them, with a zero point; after a ReLU all 256 levels are positive."""
    folder = quantised("int8", "ner") / "onnx" / "int8"
    for name in ("vision", "text"):
        graph = Graph(folder / f"{name}.onnx")
        zeros = [graph.stored(node.input[2]) for node in graph.nodes("QuantizeLinear")]
        assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
        assert (0 in {int(zero) for zero in zeros}) == (name == "vision")


@every_precision
@pytest.mark.parametrize("name", ["vision", "text"])
def test_weights_are_within_half_a_step(quantised: Callable[..., Path], name: str, precision: str) -> None:
    folder = quantised(precision, "ner") / "onnx"
    exact, rounded = (Graph(folder / each / f"{name}.onnx") for each in (QUANTISED[precision], precision))
    by_name = {node.name: node for node in exact.graph.node}
    levels = 64 if precision == "int8" and adds_int8_in_16_bits() else 127
    half, whole = (0.5001, 1.0001) if precision == "int8" else (0.75, 1.002)  # factors and scales of FP16 have 11 bits
    checked = 0
    for node in rounded.nodes("Conv", "MatMul"):
        if rounded.is_quantised(node):
            weight = exact.stored(by_name[node.name].input[1]) * rounded.smoothing(node)
            found, step = rounded.value(node.input[1])
            assert np.all(np.abs(found - weight) <= step * half)
            assert np.all(step <= np.abs(weight).max() / levels * whole)  # no channel is coarser than the largest
            assert step.max() > step.min()
            checked += 1
    assert checked == {"vision": 12, "text": 6 * LAYERS}[name]


@every_precision
@pytest.mark.parametrize("kind", [("ner", "full"), ("re", "full")], ids="-".join)
def test_the_report_is_of_other_tweets(
    quantised: Callable[..., Path],
    quantisable: Callable[..., HVPNeT],
    picture_tweets: Callable[..., Path],
    kind: tuple[str, str],
    precision: Precision,
) -> None:
    bundle = Bundle.load(quantised(precision, *kind))
    model = quantisable(*kind)
    data = CalibrationData.choose(load_split(picture_tweets(kind[0]), "train"), model.config)
    tokenizer = load_tokenizer(bundle.path, kind[0])
    report = compare(model, bundle.path, precision, example_cases(model.config, tokenizer, data.verification))
    assert json.loads(json.dumps(report.to_dict())) == bundle.manifest.parity[precision]
    assert bundle.manifest.calibration == {"method": "MinMax", "tweets": 6}
    assert report.cases == 1  # six tweets, eight at a time
    assert 1e-4 < report.prefix_error < 0.1
    assert 1e-4 < report.output_error < 0.3


@pytest.mark.parametrize(("narrow", "greatest"), [(True, 64), (False, 127)])
def test_weights_take_seven_bits_where_sums_may_overflow(
    make_model: Callable[..., HVPNeT],
    bundle_of: Callable[..., Path],
    picture_tweets: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    narrow: bool,
    greatest: int,
) -> None:
    bundle, model = Bundle.load(bundle_of("ner")), make_model("ner")
    data = CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config)
    cases = example_cases(model.config, load_tokenizer(bundle.path, "ner"), data.calibration)
    monkeypatch.setattr(hvpnet_export.quantise, "adds_int8_in_16_bits", lambda: narrow)
    quantise(model, bundle.path / "onnx" / "fp32", tmp_path, list(cases), "int8")
    for name in ("vision.onnx", "text.onnx"):
        tensors = onnx.load(tmp_path / name).graph.initializer
        weights = [
            numpy_helper.to_array(tensor)
            for tensor in tensors
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1
        ]
        assert max(np.abs(weight.astype(int)).max() for weight in weights) == greatest


@every_precision
def test_an_answer_does_not_depend_on_the_batch(quantised: Callable[..., Path], precision: str) -> None:
    """With ranges taken from the batch, as dynamic quantisation does, it would."""
    with Pipeline.load(quantised(precision, "ner"), "onnxruntime-cpu", precision=precision) as pipeline:
        tweets = [Tweet(text=text) for text in ("jordan", "a walk in madison square garden tonight", "a b c")]
        batch = pipeline([*tweets])
        for tweet, result in zip(tweets, batch, strict=True):
            (alone,) = pipeline([tweet])
            assert alone.tags == result.tags
            assert [entity.score for entity in alone.entities] == pytest.approx(
                [entity.score for entity in result.entities], abs=1e-4
            )


@every_precision
def test_only_int8(
    quantisable: Callable[..., HVPNeT], tokenizer_dir: Path, tmp_path: Path, picture_tweets: Any, precision: Precision
) -> None:
    """The graphs it is made from do not stay."""
    model = quantisable("ner", "text_only")
    data = CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config)
    reports = export_bundle(
        model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle", precisions=(precision,), calibration=data
    )
    assert list(reports) == [precision]
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest.precision == (precision,)
    assert [path.name for path in (bundle.path / "onnx").iterdir()] == [precision]
    with Pipeline.load(bundle.path, "onnxruntime-cpu") as pipeline:
        assert pipeline.backend.precision == precision


@pytest.mark.parametrize("precisions", [("fp32", "int8"), ("int8", "fp32")])
def test_failing_int8_leaves_the_fp32_graphs_where_asked(
    quantisable: Callable[..., HVPNeT],
    tokenizer_dir: Path,
    tmp_path: Path,
    picture_tweets: Any,
    monkeypatch: pytest.MonkeyPatch,
    precisions: Any,
) -> None:
    monkeypatch.setitem(AGREEMENT, "int8", 1.1)  # more than all decisions
    model, out = quantisable("ner", "text_only"), tmp_path / "bundle"
    options = {
        "precisions": precisions,
        "calibration": CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config),
    }
    with pytest.raises(ParityError, match=r"int8: the graphs differ too much .*: keep_going=True .* with fp32 alone"):
        export_bundle(model, load_tokenizer(tokenizer_dir, "ner"), out, **options)
    assert not list(tmp_path.iterdir())
    with pytest.raises(IncompleteError, match="bundle holds fp32, but not int8: the graphs differ too much"):
        export_bundle(model, load_tokenizer(tokenizer_dir, "ner"), out, **options, keep_going=True)
    bundle = Bundle.load(out)
    assert (bundle.manifest.precision, bundle.manifest.calibration) == (("fp32",), None)
    assert [path.name for path in (out / "onnx").iterdir()] == ["fp32"]


@pytest.mark.parametrize(
    ("precisions", "given"), [(("fp32", "int8"), False), (("int8_fp16",), False), (("fp32", "fp16"), True)]
)
def test_calibration_data_and_int8_go_together(
    make_model: Callable[..., HVPNeT],
    tokenizer_dir: Path,
    tmp_path: Path,
    picture_tweets: Any,
    precisions: Any,
    given: bool,
) -> None:
    model = make_model("ner", "text_only")
    data = CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config) if given else None
    with pytest.raises(ExportError, match="int8 and int8_fp16 need calibration data, the folder of the training"):
        export_bundle(
            model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "out", precisions=precisions, calibration=data
        )
    assert not list(tmp_path.iterdir())


def test_a_weight_beyond_fp16_is_named(
    quantisable: Callable[..., HVPNeT], tokenizer_dir: Path, tmp_path: Path, picture_tweets: Any
) -> None:
    """Also where the FP16 graphs were not asked for, and the rest is kept."""
    model = deepcopy(quantisable("ner", "text_only"))
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[0, 0] = 1e5
    data = CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config)
    arguments = model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle"
    with pytest.raises(ExportError, match=r"0\.output\.dense\.weight holds values beyond 65504"):
        export_bundle(*arguments, precisions=("int8_fp16",), calibration=data)
    with pytest.raises(IncompleteError, match=r"holds fp32, but not int8_fp16: .* beyond 65504"):
        export_bundle(*arguments, precisions=("fp32", "int8_fp16"), calibration=data, keep_going=True)
    assert [path.name for path in (tmp_path / "bundle/onnx").iterdir()] == ["fp32"]


@every_precision
def test_channels_that_are_dead_or_weak(
    make_model: Callable[..., HVPNeT],
    tokenizer_dir: Path,
    tmp_path: Path,
    picture_tweets: Any,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
) -> None:
    """Smoothing factors of dead channels are beyond FP16, and scales of weak ones below its normal numbers."""
    model = deepcopy(make_model("ner", "text_only", spread=1))
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            norm = layer.attention.output.LayerNorm
            norm.weight *= 16
            norm.weight[:3] = norm.bias[:3] = 0
            layer.intermediate.dense.weight[5] *= 0.002
    monkeypatch.setitem(AGREEMENT, precision, 0.5)  # such a model amplifies rounding
    monkeypatch.setitem(TOLERANCES, precision, 100.0)
    data = CalibrationData.choose(load_split(picture_tweets("ner"), "train"), model.config)
    tokenizer, out = load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle"
    export_bundle(model, tokenizer, out, precisions=(precision,), calibration=data)
    graph = Graph(out / "onnx" / precision / "text.onnx")
    for node in graph.nodes("MatMul"):
        if graph.is_quantised(node):
            assert graph.stored(graph.made_by[node.input[1]].input[0]).any(0).all()


def test_weights_that_vanish_are_an_error(
    quantisable: Callable[..., HVPNeT], bundle_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in releases of ONNX Runtime that take 1 for a small scale."""
    from onnxruntime import quantization

    real = quantization.quantize_static

    def weak(source: Any, target: Path, *arguments: Any, **options: Any) -> None:
        real(source, target, *arguments, **options)
        model = onnx.load(target)
        (weight, *_) = (each for each in model.graph.initializer if each.name.endswith("_quantized"))
        values = numpy_helper.to_array(weight).copy()
        values[:, 3] = 0
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, target)

    monkeypatch.setattr(quantization, "quantize_static", weak)
    source = bundle_of("ner", "text_only") / "onnx/fp32"
    model = quantisable("ner", "text_only")
    with pytest.raises(ExportError, match=r"weights of a channel of .* in text\.onnx to zero: upgrade onnxruntime"):
        quantise(model, source, tmp_path, list(random_cases(model))[:1], "int8")


def test_what_the_quantiser_raises_is_one_line(
    quantisable: Callable[..., HVPNeT], bundle_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("scale issue\nat 0x1")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fail)
    model = quantisable("ner", "text_only")
    with pytest.raises(ExportError, match=r"^ONNX Runtime could not quantise text\.onnx: scale issue$"):
        quantise(model, bundle_of("ner", "text_only") / "onnx/fp32", tmp_path, list(random_cases(model))[:1], "int8")


def test_no_picture_to_calibrate_with(
    quantisable: Callable[..., HVPNeT], bundle_of: Callable[..., Path], picture_tweets: Any, tmp_path: Path
) -> None:
    model, bundle = quantisable("ner"), bundle_of("ner")
    examples = [
        replace(each, tweet=replace(each.tweet, image=None, objects=()))
        for each in load_split(picture_tweets("ner"), "train").examples[:2]
    ]
    cases = list(example_cases(model.config, load_tokenizer(bundle, "ner"), examples))
    with pytest.raises(ExportError, match="none of the calibration tweets has a picture"):
        quantise(model, bundle / "onnx/fp32", tmp_path, cases, "int8")


def test_tweets_are_spread_over_the_split_and_never_both(make_model: Any, picture_tweets: Any) -> None:
    config = make_model("ner", "text_only").config
    split = load_split(picture_tweets("ner"), "train")
    data = CalibrationData.choose(split, config)
    assert [example.tweet.id for example in data.calibration] == [0, 2, 4, 6, 8, 10]
    assert [example.tweet.id for example in data.verification] == [1, 3, 5, 7, 9, 11]


def test_calibration_data_that_do_not_fit(make_model: Any, picture_tweets: Any, tmp_path: Path) -> None:
    entities, relations = make_model("ner"), make_model("re")
    split = load_split(picture_tweets("ner"), "train")
    with pytest.raises(ExportError, match="the calibration data are for task ner, the checkpoint is for re"):
        CalibrationData.choose(split, relations.config)
    shutil.copy(picture_tweets("ner") / "train.txt", tmp_path)
    with pytest.raises(ExportError, match="the calibration data have no pictures"):
        CalibrationData.choose(load_split(tmp_path, "train"), entities.config)
    (tmp_path / "train.txt").write_text("IMGID:1\nJordan\tB-PER\n\n")
    with pytest.raises(ExportError, match="the calibration data have one tweet"):
        CalibrationData.choose(load_split(tmp_path, "train"), make_model("ner", "text_only").config)


def test_cases_are_what_the_runtime_reads(ner_bundle: Path, ner_model: HVPNeT, picture_tweets: Any) -> None:
    examples = load_split(picture_tweets("ner"), "test").examples[:6]
    cases = list(example_cases(ner_model.config, load_tokenizer(ner_bundle, "ner"), examples, batch_size=4))
    assert [len(case.slots) for case in cases] == [4, 2]
    found = [
        ([None if place == BLANK else case.pixels[place].numpy() for place in places], ids[mask.bool()].tolist())
        for case in cases
        for places, ids, mask in zip(case.slots, case.text["input_ids"], case.text["attention_mask"], strict=True)
    ]
    blanks = 0
    with Pipeline.load(ner_bundle) as pipeline:
        for (pictures, ids), example in zip(found, examples, strict=True):
            prepared = pipeline.prepare(example.tweet)
            assert list(prepared.encodings[0].input_ids) == ids
            for picture, ready in zip(pictures, prepared.pictures, strict=True):
                assert (picture is None) == (ready is None)
                if ready is not None:
                    np.testing.assert_array_equal(picture, ready.pixels)
                blanks += ready is None
    assert 0 < blanks < 4 * len(examples)


def test_a_picture_is_in_a_case_once(ner_bundle: Path, ner_model: HVPNeT, picture_tweets: Any) -> None:
    (example, *_) = load_split(picture_tweets("ner"), "test").examples
    assert example.tweet.image is not None
    without = replace(example, tweet=replace(example.tweet, image=None, objects=()))
    tokenizer = load_tokenizer(ner_bundle, "ner")
    (case,) = example_cases(ner_model.config, tokenizer, [example, without, example])
    real = 1 + min(3, len(example.tweet.objects))
    row = [*range(real), *[BLANK] * (4 - real)]
    assert case.slots.tolist() == [row, [BLANK] * 4, row]
    assert case.pixels is not None
    assert case.pixels.shape == (real, 224, 224, 3)
    (case,) = example_cases(ner_model.config, tokenizer, [without])
    assert case.slots.tolist() == [[BLANK] * 4]
    assert case.pixels is not None
    assert case.pixels.shape == (0, 224, 224, 3)


def test_tweets_without_pictures_calibrate_the_text_graph(
    make_model: Callable[..., HVPNeT], bundle_of: Callable[..., Path], picture_tweets: Any, tmp_path: Path
) -> None:
    bundle, model = bundle_of("ner"), make_model("ner")
    example, other = load_split(picture_tweets("ner"), "train").examples[:2]
    without = replace(other, tweet=replace(other.tweet, image=None, objects=()))
    cases = list(example_cases(model.config, load_tokenizer(bundle, "ner"), [example, without], batch_size=1))
    assert [len(case.pixels) > 0 for case in cases] == [True, False]
    quantise(model, bundle / "onnx" / "fp32", tmp_path / "onnx" / "int8", cases, "int8")
    shutil.copy(bundle / "blank.npz", tmp_path)
    report = compare(model, tmp_path, "int8", cases)
    assert report.cases == 2
    assert 1e-4 < report.prefix_error < 0.1
