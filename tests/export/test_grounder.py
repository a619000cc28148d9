"""A grounder in a bundle: graphs that answer as the eager model, files and digests, and nothing lost when it fails."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from random_owl_vit import write_random_owl_vit
from tiny_one_stage import one_stage
from tokenizers import Tokenizer

from hvpnet.cli.main import main
from hvpnet.modeling.grounding import Grounder, load_grounder
from hvpnet.modeling.grounding.one_stage import OneStageGrounder
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import ExportError, ParityError, add_grounder, export_bundle
from hvpnet_export import grounder as room
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BundleError

pytestmark = pytest.mark.heavy

WORDS = ("person", "a red kite")
TEXTS = ["a red kite", "person", "kite kite kite kite kite"]


@pytest.fixture(scope="module")
def grounder(tokenizer_dir: Path) -> OneStageGrounder:
    return one_stage(tokenizer_dir)


@pytest.fixture(scope="module")
def text_bundle(grounder: Grounder, re_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Queries of the text, both precisions."""
    folder = tmp_path_factory.mktemp("text") / "bundle"
    shutil.copytree(re_bundle, folder)
    add_grounder(folder, grounder, None, 0.25, ("fp32", "fp16"))
    return Bundle.load(folder)


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports that take no time, and graphs that nobody compares."""

    def write(_module: Any, _spec: Any, path: Path, **_settings: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())

    class Passed:
        summary, passed = "nothing was compared", True

        def require(self) -> "Passed":
            return self

        def to_dict(self) -> dict[str, Any]:
            return {"passed": True}

    monkeypatch.setattr(room, "write_graph", write)
    monkeypatch.setattr(room, "compare_graphs", lambda *_: Passed())


def session(bundle: Bundle, graph: Any, precision: str) -> ort.InferenceSession:
    return ort.InferenceSession(bundle.onnx(graph, precision), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("fp16", 2e-2)])
@torch.no_grad()
def test_graphs_answer_as_eager(grounder: OneStageGrounder, text_bundle: Bundle, precision: str, bound: float) -> None:
    """Pieces as the bundle's tokeniser gives them, for any number of pictures and queries."""
    tokenizer = Tokenizer.from_str((text_bundle.path / "grounder_tokenizer.json").read_text("utf-8"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(text_bundle.grounder.max_length)
    encoder, finder = session(text_bundle, "queries", precision), session(text_bundle, "grounder", precision)
    for count, texts in ((1, TEXTS), (3, TEXTS[:1]), (2, TEXTS[:2])):
        pieces = tokenizer.encode_batch(texts)
        ids, mask = (np.array([getattr(each, name) for each in pieces]) for name in ("ids", "attention_mask"))
        (queries,) = encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        wanted = grounder.encode(texts)
        np.testing.assert_allclose(queries, wanted.numpy(), atol=bound)
        images = torch.randint(0, 256, (count, 64, 64, 3), generator=torch.Generator().manual_seed(count)).byte()
        asked = wanted.expand(count, -1, -1).contiguous()
        boxes, scores = finder.run(None, {"images": images.numpy(), "queries": asked.numpy()})
        assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)
        eager_boxes, eager_scores = grounder(images, asked)
        np.testing.assert_allclose(boxes, eager_boxes.numpy(), atol=bound)
        np.testing.assert_allclose(scores, eager_scores.numpy(), rtol=bound)


def test_narrow_graphs_are_narrow_where_it_is_safe(text_bundle: Bundle) -> None:
    """Strongly typed: weights are FP16, and no softmax, exponential or norm is."""
    for name, narrow, wide in (("grounder", "Conv", ("Softmax", "Exp")), ("queries", "MatMul", ("Softmax",))):
        model = onnx.shape_inference.infer_shapes(onnx.load(text_bundle.onnx(name, "fp16")))
        types = {each.name: each.type.tensor_type.elem_type for each in (*model.graph.value_info, *model.graph.output)}
        kinds = {each.op_type for each in model.graph.node}
        assert not kinds & {"BatchNormalization", "GridSample"}
        assert {narrow, *wide} <= kinds
        for node in model.graph.node:
            if node.op_type in (*wide, "ReduceL2", "LayerNormalization"):
                assert types[node.output[0]] == TensorProto.FLOAT, node.name
        weights = [each for each in model.graph.initializer if np.prod(each.dims) > 200]
        share = np.mean([each.data_type == TensorProto.FLOAT16 for each in weights])
        assert share > 0.8


def test_manifest_and_files_of_text_queries(text_bundle: Bundle, re_bundle: Path) -> None:
    spec = text_bundle.grounder
    assert (spec.kind, spec.size, spec.query_size, spec.max_length) == ("one-stage", 64, 16, 20)
    assert (spec.queries, spec.words, spec.threshold, spec.precision) == ("text", (), 0.25, ("fp32", "fp16"))
    assert all(report["passed"] for report in spec.parity.values())
    before = Bundle.load(re_bundle).manifest
    graphs = {f"onnx/{each}/{name}.onnx" for each in spec.precision for name in ("grounder", "queries")}
    assert text_bundle.manifest.files.keys() == before.files.keys() | graphs | {"grounder_tokenizer.json"}
    assert replace(text_bundle.manifest, grounder=None, files=before.files) == before


def test_a_grounder_takes_the_place_of_another(
    without_graphs: None, grounder: OneStageGrounder, ner_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(ner_bundle, folder)
    (folder / "engines/x").mkdir(parents=True)
    (folder / "engines/x/vision.plan").write_bytes(b"plan")
    add_grounder(folder, grounder, None)
    assert (folder / "onnx/fp32/queries.onnx").is_file()
    (tmp_path / "link").symlink_to(folder)
    add_grounder(tmp_path / "link", grounder, WORDS)
    bundle = Bundle.load(folder)
    assert bundle.grounder.words == WORDS
    torch.testing.assert_close(torch.from_numpy(bundle.grounder_queries()), grounder.encode(WORDS))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*bundle.manifest.files, "manifest.json", "engines/x/vision.plan"}
    assert not found & {"onnx/fp32/queries.onnx", "grounder_tokenizer.json"}
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "link"]


def test_no_file_of_the_bundle_is_written_to(
    without_graphs: None, grounder: OneStageGrounder, ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that no manifest lists have the names of the new ones, one of them through a link to a folder outside."""
    folder, outside = tmp_path / "bundle", tmp_path / "outside"
    shutil.copytree(ner_bundle, folder)
    outside.mkdir()
    (folder / "onnx/fp16").symlink_to(outside)
    mine = [folder / "grounder.npz", folder / "onnx/fp32/grounder.onnx", outside / "grounder.onnx"]
    for path in mine:
        path.write_text("mine")
    folder.chmod(0o700)

    def differ(*_: Any) -> None:
        raise ParityError("the grounder's graphs differ too much")

    with monkeypatch.context() as patch:
        patch.setattr(room, "compare_graphs", differ)
        with pytest.raises(ParityError, match="differ too much"):
            add_grounder(folder, grounder, WORDS, precisions=("fp16", "fp32"))
    assert [path.read_text() for path in mine] == ["mine"] * 3
    add_grounder(folder, grounder, WORDS, precisions=("fp16", "fp32"))
    assert Bundle.load(folder).grounder.words == WORDS
    assert (outside / "grounder.onnx").read_text() == "mine"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("without_graphs")
def test_a_damaged_grounder_is_added_again(grounder: OneStageGrounder, ner_bundle: Path, tmp_path: Path) -> None:
    """The cure that errors name: only files of the old grounder may be amiss."""
    folder = Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))
    add_grounder(folder, grounder, WORDS)
    right = Bundle.load(folder).manifest
    (folder / "grounder.npz").unlink()
    (folder / "onnx/fp32/grounder.onnx").write_bytes(b"cut off")
    with pytest.raises(BundleError):
        Bundle.load(folder)
    add_grounder(folder, grounder, WORDS)
    assert Bundle.load(folder).manifest == right
    (folder / "grounder.npz").unlink()
    (folder / "decoder.npz").unlink()
    with pytest.raises(BundleError, match=r"decoder\.npz is missing"):
        add_grounder(folder, grounder, WORDS)


def test_the_grounder_follows_the_precisions_of_the_bundle() -> None:
    assert room.grounder_precisions(("fp32",)) == ("fp32",)
    assert room.grounder_precisions(("int8", "fp16", "fp32")) == ("fp32", "fp16")
    assert room.grounder_precisions(("int8",)) == ("fp32",)
    assert room.grounder_precisions(("fp16", "int8")) == ("fp32", "fp16")
    assert room.grounder_precisions(("fp16",)) == ("fp16",)
    assert room.grounder_precisions(("int8_fp16",)) == ("fp16",)
    assert room.grounder_precisions(("fp32", "int8", "int8_fp16")) == ("fp32", "fp16")


@pytest.mark.parametrize(
    ("words", "threshold", "precisions", "message"),
    [
        ((), 0.0, ("fp32",), "words"),
        (("person", "person"), 0.0, ("fp32",), "words has one value twice"),
        (("person", " "), 0.0, ("fp32",), "blank"),
        (WORDS, 1.5, ("fp32",), "threshold"),
        (WORDS, 0.0, ("int8",), "int8"),
    ],
)
def test_what_cannot_be_used_is_refused(
    grounder: Grounder, ner_bundle: Path, tmp_path: Path, words: Any, threshold: float, precisions: Any, message: str
) -> None:
    shutil.copytree(ner_bundle, tmp_path / "bundle")
    with pytest.raises(ExportError, match=message):
        add_grounder(tmp_path / "bundle", grounder, words, threshold, precisions)
    assert Bundle.load(tmp_path / "bundle").manifest == Bundle.load(ner_bundle).manifest


def test_a_graph_that_differs_leaves_the_bundle_as_it_was(
    grounder: OneStageGrounder, ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parity gate: graphs of another bias."""
    folder = tmp_path / "bundle"
    shutil.copytree(ner_bundle, folder)
    fold = room.fold_batch_norm

    def folded_wrongly(module: OneStageGrounder) -> OneStageGrounder:
        with torch.no_grad():
            module.fcn_out[0][-1].bias += 1
        return fold(module)

    monkeypatch.setattr(room, "fold_batch_norm", folded_wrongly)
    with pytest.raises(ParityError, match="the grounder's graphs differ too much"):
        add_grounder(folder, grounder, WORDS)
    assert Bundle.load(folder).manifest == Bundle.load(ner_bundle).manifest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_model_without_pictures_gets_none(
    grounder: Grounder,
    bundle_of: Callable[..., Path],
    make_model: Callable[..., Any],
    tokenizer_dir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(BundleError, match="reads no pictures"):
        add_grounder(bundle_of("ner", "text_only"), grounder, WORDS)
    model, tokenizer = make_model("ner", "text_only"), load_tokenizer(tokenizer_dir, "ner")
    with pytest.raises(BundleError, match="reads no pictures"):
        export_bundle(model, tokenizer, tmp_path / "bundle", grounder=grounder, words=WORDS)
    assert not list(tmp_path.iterdir())


def test_a_weight_that_fp16_cannot_hold(tokenizer_dir: Path) -> None:
    grounder = one_stage(tokenizer_dir)
    with torch.no_grad():
        grounder.fcn_out[1][-1].bias[3] = 1e5
    with pytest.raises(ExportError, match=r"fcn_out\.1\.1\.bias holds values beyond 65504"):
        room.to_grounder_precision(grounder, "fp16")


def test_vectors_of_other_queries_are_found_out(grounder: OneStageGrounder, tmp_path: Path) -> None:
    np.savez(tmp_path / "grounder.npz", queries=grounder.encode(("person", "a blue kite")).numpy())
    with pytest.raises(ParityError, match="vectors of other queries"):
        room.compare_graphs(grounder, tmp_path, room.grounder_spec(grounder, WORDS, 0.0, ("fp32",)), "fp32")


# The command


def test_export_and_add_by_the_command(
    without_graphs: None,
    grounder: OneStageGrounder,
    ner_model: Any,
    tokenizer_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The defaults of entities are the four types; `inspect` shows them."""
    torch.save({"state_dict": grounder.state_dict()}, tmp_path / "grounder.pth.tar")
    torch.save(ner_model.state_dict(), tmp_path / "model.pth")
    out = tmp_path / "bundle"
    given = ["--grounder", str(tmp_path / "grounder.pth.tar"), "--grounder-tokenizer", str(tokenizer_dir)]
    export = ["export", str(tmp_path / "model.pth"), "--out", str(out), "--tokenizer", str(tokenizer_dir)]
    assert main([*export, "--max-length", "64", *given]) == 0, capsys.readouterr().err
    assert Bundle.load(out).grounder.words == ("person", "organization", "location", "miscellaneous")
    assert main(["ground", "add", str(out), *given, "--queries", "dog, a red kite"]) == 0
    assert Bundle.load(out).grounder.words == ("dog", "a red kite")
    capsys.readouterr()
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "one-stage, pictures of 256 pixels, fp32" in shown
    assert "dog, a red kite" in shown
    assert main(["verify", str(out), "--checkpoint", str(tmp_path / "model.pth"), *given]) == 0
    assert main(["ground", "add", str(out), *given, "--queries", "text"]) == 0
    assert Bundle.load(out).grounder.queries == "text"


def test_the_command_takes_the_folder_of_an_owl_vit(
    without_graphs: None, ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It brings its own tokenizer; vectors of the words are those of the eager model."""
    folder, checkpoint = Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), tmp_path / "owl"
    write_random_owl_vit(checkpoint)
    words = ("dog", "a red kite")
    assert main(["ground", "add", str(folder), "--grounder", str(checkpoint), "--queries", ", ".join(words)]) == 0
    assert "owl-vit" in capsys.readouterr().out
    bundle, eager = Bundle.load(folder), load_grounder(checkpoint)
    assert (bundle.grounder.kind, bundle.grounder.size) == ("owl-vit", eager.size)
    assert bundle.grounder.words == words
    np.testing.assert_allclose(bundle.grounder_queries(), eager.encode(words).numpy(), atol=1e-6)


_NOWHERE = "the grounder nowhere.pth is not there: name the file or folder of its checkpoint"
_TOKENIZER = (
    "name the folder of the BERT that it was trained on"
    " (hvpnet ground add --grounder-tokenizer, or tokenizer in Python)"
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ground", "add", "BUNDLE", "--grounder", "nowhere.pth", "--grounder-tokenizer", "."], _NOWHERE),
        (["ground", "add", "BUNDLE", "--grounder", "nowhere"], "the grounder nowhere is not there: "),
        (
            ["ground", "add", "BUNDLE", "--grounder", __file__],
            f"the grounder {__file__} comes without a tokenizer: {_TOKENIZER}",
        ),
        (
            ["ground", "add", "BUNDLE", "--grounder", __file__, "--grounder-tokenizer", "nowhere"],
            "the grounder's tokenizer nowhere is not there: name the folder of the tokenizer",
        ),
        (
            ["ground", "add", "TEXT_ONLY", "--grounder", "nowhere"],
            "the model reads no pictures (variant text_only): a grounder finds nothing for it",
        ),
        (["ground", "add", "nowhere", "--grounder", "nowhere.pth"], "nowhere is not a bundle: "),
        (["export", "x.pth", "--out", "new", "--grounder", "nowhere.pth"], _NOWHERE),
        (["verify", "BUNDLE", "--checkpoint", "x.pth", "--grounder", "nowhere.pth"], _NOWHERE),
        (
            ["export", "x.pth", "--out", "new", "--variant", "text_only", "--grounder", "nowhere.pth"],
            "--variant text_only reads no pictures: a grounder finds nothing for it",
        ),
        (
            ["export", "x.pth", "--out", "new", "--queries", "text"],
            "--grounder-tokenizer and --queries describe a grounder: give --grounder too",
        ),
    ],
)
def test_errors_are_one_line_before_anything_is_loaded(
    arguments: list[str], message: str, bundle_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = {"BUNDLE": bundle_of("ner", "full"), "TEXT_ONLY": bundle_of("ner", "text_only")}
    assert main([str(bundles.get(each, each)) for each in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()  # so nothing was said to be loading
    assert line.startswith(f"hvpnet: error: {message}")
