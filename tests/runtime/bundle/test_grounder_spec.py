"""A bundle with a grounder says what it is, and one that is malformed is refused by one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rewrite import rewrite
from tiny_grounder import add_grounder, grounder_graph, queries_graph, vectors

from hvpnet.cli import main
from hvpnet_runtime import Bundle, BundleError
from hvpnet_runtime.bundle import GrounderSpec, Manifest, TensorSpec, grounder_specs
from hvpnet_runtime.bundle.graph_spec import FoundTensor
from hvpnet_runtime.bundle.onnx_file import require_own_weights

ADD_AGAIN = "add the grounder again with hvpnet ground add"


@pytest.fixture
def copy(ner_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))


def described(value: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    axes = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), axes)


def test_a_bundle_without_a_grounder_is_written_as_before(ner_bundle: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    assert bundle.manifest.grounder is None
    assert "grounder" not in json.loads((ner_bundle / "manifest.json").read_text("utf-8"))
    with pytest.raises(BundleError, match=r"has no grounder, .*: give the bundle one with hvpnet ground add"):
        bundle.grounder_queries()


@pytest.mark.parametrize("queries", ["fixed", "text"])
def test_what_it_says(copy: Path, queries: str) -> None:
    bundle = Bundle.load(add_grounder(copy, queries, ("red", "blue"), threshold=0.25, precision=("fp32", "fp16")))
    words = ("red", "blue") if queries == "fixed" else ()
    assert bundle.grounder == GrounderSpec("one-stage", 32, 3, 8, queries, words, 0.25, ("fp32", "fp16"), {})
    assert Manifest.from_dict(json.loads(bundle.manifest.to_json())) == bundle.manifest
    own = {"grounder.npz"} if queries == "fixed" else {"grounder_tokenizer.json"}
    graphs = {f"onnx/{each}/grounder.onnx" for each in ("fp32", "fp16")}
    if queries == "text":
        graphs |= {f"onnx/{each}/queries.onnx" for each in ("fp32", "fp16")}
    without = Bundle.load(copy).manifest.required_files(graphs=False)
    assert set(without) == {"tokenizer.json", "decoder.npz", "blank.npz"} | own | graphs
    assert bundle.onnx("grounder", "fp16") == copy / "onnx/fp16/grounder.onnx"
    assert bundle.graph("grounder", "fp32") == grounder_graph()
    with pytest.raises(BundleError, match="no int8 grounder, only fp32, fp16"):
        bundle.onnx("grounder", "int8")


def test_graphs_are_what_their_specs_say() -> None:
    specs = grounder_specs(GrounderSpec("one-stage", 32, 3, 8, "text"))
    for name, content in (("grounder", grounder_graph()), ("queries", queries_graph())):
        graph = onnx.load_from_string(content).graph
        assert tuple(map(described, graph.input)) == specs[name].inputs
        assert tuple(map(described, graph.output)) == specs[name].outputs
    assert specs["grounder"].input_shapes(2, 5) == {"images": (2, 32, 32, 3), "queries": (2, 5, 3)}
    assert specs["queries"].input_shapes(4, 7) == {"input_ids": (4, 7), "attention_mask": (4, 7)}
    assert set(grounder_specs(GrounderSpec("one-stage", 32, 3, 8, "fixed", ("red",)))) == {"grounder"}


def test_queries_are_read(copy: Path) -> None:
    found = Bundle.load(add_grounder(copy, words=("green", "red"))).grounder_queries()
    np.testing.assert_array_equal(found, vectors(("green", "red")))
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("has", "model", "runs"),
    [
        (("fp32", "fp16"), "fp16", "fp16"),
        (("fp32", "fp16"), "int8", "fp32"),
        (("fp32", "fp16"), "int8_fp16", "fp16"),
        (("fp32",), "int8_fp16", "fp32"),
        (("fp32", "fp16"), "bf16", "fp32"),
        (("fp32",), "fp16", "fp32"),
        (("fp16",), "int8", "fp16"),
    ],
)
def test_the_precision_that_runs(has: Any, model: str, runs: str) -> None:
    assert GrounderSpec("owl-vit", 32, 3, 8, "text", precision=has).prefer(model) == runs


def edit(bundle: Path, **values: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    manifest["grounder"].update(values)
    (bundle / "manifest.json").write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "detr"},
        {"size": 0},
        {"size": 2**40},
        {"size": "32"},
        {"query_size": -3},
        {"max_length": 0},
        {"queries": "words"},
        {"queries": "text"},  # which has no words
        {"words": []},
        {"words": ["red", "red", "blue"]},
        {"words": ["red", " ", "blue"]},
        {"words": ["red", "\ud800", "blue"]},
        {"words": "red"},
        {"threshold": -0.1},
        {"threshold": 1.5},
        {"threshold": None},
        {"precision": []},
        {"precision": ["int8"]},
        {"precision": ["fp32", "fp32"]},
        {"precision": ["fp32", "fp16"]},  # whose graph is not there
        {"parity": []},
        {"parity": {"fp32": []}},
        {"parity": {"fp32": {}}},
        {"parity": {"fp32": {"summary": None}}},
        {"parity": {"fp32": {"summary": {"error": 1}}}},
        {"parity": {"fp32": {"summary": "\ud800"}}},
        {"parity": {"fp64": {"summary": "nothing differs"}}},
        {"anchors": 9},
    ],
    ids=str,
)
def test_impossible_values_are_one_clear_line(copy: Path, values: dict[str, object]) -> None:
    edit(add_grounder(copy), **values)
    with pytest.raises(BundleError, match=r"manifest\.json") as raised:
        Bundle.load(copy)
    assert "\n" not in str(raised.value)


def test_the_summary_of_its_parity_is_shown(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(add_grounder(copy), parity={"fp32": {"summary": "nothing differs", "boxes": [0.5]}})
    assert main(["inspect", str(copy)]) == 0
    assert "parity grounder fp32  nothing differs" in [
        " ".join(line.split(maxsplit=3)[:3]) + "  " + line.split(maxsplit=3)[3]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("parity grounder")
    ]


def test_a_model_that_reads_no_pictures_has_no_grounder(copy: Path) -> None:
    manifest = json.loads((add_grounder(copy) / "manifest.json").read_text("utf-8"))
    manifest["variant"], manifest["sizes"]["pictures"] = "text_only", 0
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match="it has a grounder, and the variant text_only reads no pictures"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("queries", "name"),
    [
        ("fixed", "grounder.npz"),
        ("fixed", "onnx/fp32/grounder.onnx"),
        ("text", "onnx/fp32/queries.onnx"),
        ("text", "grounder_tokenizer.json"),
    ],
)
def test_files_of_it_that_are_missing_or_edited_are_named(copy: Path, queries: str, name: str) -> None:
    add_grounder(copy, queries)
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=rf"{name} was changed"):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        Bundle.load(copy)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    del manifest["files"][name]
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match=rf"manifest.json lists no {name}: {ADD_AGAIN}$"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), r"queries is float32 \[2, 3\], the graphs read float32 \[3, 3\]"),
        (np.zeros((3, 3)), "queries is float64"),
        (np.full((3, 3), np.nan, np.float32), "queries contains NaN"),
    ],
)
def test_queries_of_another_grounder(copy: Path, array: np.ndarray, message: str) -> None:
    add_grounder(copy)
    np.savez(copy / "grounder.npz", queries=array)
    rewrite(copy, "grounder.npz", (copy / "grounder.npz").read_bytes())
    with pytest.raises(BundleError, match=rf"grounder\.npz: {message}.*; {ADD_AGAIN}$"):
        Bundle.load(copy).grounder_queries()


@pytest.mark.parametrize("name", ["grounder", "queries"])
def test_graphs_of_another_grounder(name: Any) -> None:
    spec = grounder_specs(GrounderSpec("one-stage", 32, 3, 8, "text"))[name]
    file, other = Path(f"onnx/fp32/{name}.onnx"), FoundTensor(spec.inputs[0].name, "float64", ())
    inputs, outputs = ([each.expected for each in side] for side in (spec.inputs, spec.outputs))
    spec.check(file, inputs, outputs)
    for wrong in (inputs[:1], [other, *inputs[1:]]):
        with pytest.raises(BundleError, match=rf"{name}\.onnx.*: {ADD_AGAIN}$"):
            spec.check(file, wrong, outputs)
    with pytest.raises(BundleError, match=rf"{name}\.onnx is no ONNX file, or damaged: {ADD_AGAIN}$"):
        require_own_weights(b"no protobuf", file)


def test_a_bundle_that_lacks_more_than_its_grounder(copy: Path) -> None:
    manifest = json.loads((add_grounder(copy) / "manifest.json").read_text("utf-8"))
    del manifest["files"]["grounder.npz"], manifest["files"]["decoder.npz"]
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BundleError, match=r"lists no decoder.npz, grounder.npz: export the checkpoint again$"):
        Bundle.load(copy)
