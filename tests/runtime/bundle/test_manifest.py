"""Loading checks schema, presence and digests before anything is parsed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rewrite import rewrite

from hvpnet_runtime import Bundle, BundleError, Pipeline
from hvpnet_runtime.bundle import SCHEMA_VERSION, Manifest, PictureSpec


@pytest.fixture
def copy(ner_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_reads_what_export_wrote(ner_bundle: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    manifest = bundle.manifest
    assert (bundle.task, manifest.variant, manifest.head, manifest.limits.max_length) == ("ner", "full", None, 64)
    assert bundle.labels[:3] == ("PAD", "O", "B-MISC")
    assert bundle.sizes.prefix_shape == (4, 2, 4 * 128)
    assert bundle.sizes.pictures == 4
    assert manifest.preprocessing == PictureSpec(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 50_000_000)
    assert bundle.onnx("text").is_file()
    written = json.loads((ner_bundle / "manifest.json").read_text("utf-8"))
    assert written["schema_version"] == SCHEMA_VERSION
    assert json.loads(manifest.to_json()) == written
    assert Manifest.from_dict(written) == manifest


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "decoder.npz", "blank.npz", "onnx/fp32/vision.onnx", "onnx/fp32/text.onnx"]
)
def test_edited_truncated_and_missing_files_are_named(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    edited = bytearray(content)
    edited[len(edited) // 2] ^= 1
    for damaged, complaint in ((bytes(edited), "was changed"), (content[:-1], "bytes"), (b"", "bytes")):
        (copy / name).write_bytes(damaged)
        with pytest.raises(BundleError, match=rf"{name}.*{complaint}"):
            Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        Pipeline.load(copy)


def test_nothing_is_parsed_before_the_digests_hold(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "onnx/fp32/text.onnx").write_bytes(b"x")
    monkeypatch.setattr("hvpnet_runtime.preprocessing.prepare.load_tokenizer", lambda _: pytest.fail("parsed"))
    with pytest.raises(BundleError):
        Pipeline.load(copy)


def test_schemas_of_other_versions_say_what_to_do(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(schema_version=3))
    with pytest.raises(BundleError, match="its schema is 3, this version reads 2: upgrade hvpnet"):
        Bundle.load(copy)
    edit(copy, lambda manifest: manifest.update(schema_version=1, precision=["fp32", "int8"]))
    command = "hvpnet export CHECKPOINT --tokenizer DIR --out NEW_BUNDLE --precision fp32,int8 --calibration DATA"
    with pytest.raises(BundleError, match=f"its schema is 1, .*: make the bundle anew with {command}"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("labels"),
        lambda manifest: manifest.pop("sizes"),
        lambda manifest: manifest["sizes"].update(extra=1),
        lambda manifest: manifest.update(task="translation"),
        lambda manifest: manifest.update(head="tail"),
        lambda manifest: manifest["files"].pop("onnx/fp32/text.onnx"),
        lambda manifest: manifest["files"].update({"../outside": {"bytes": 1, "sha256": ""}}),
        lambda manifest: manifest["files"]["tokenizer.json"].pop("sha256"),
        lambda manifest: manifest.pop("schema_version"),
        lambda manifest: manifest.update(limits=3),
        lambda manifest: manifest["sizes"].update(hidden="128"),
        lambda manifest: manifest["sizes"].update(hidden=True),
        lambda manifest: manifest["preprocessing"].update(mean=[0.5, 0.5]),
        lambda manifest: manifest["preprocessing"].update(mean=[0.5, "0.5", 0.5]),
        lambda manifest: manifest.update(labels="PAD"),
        lambda manifest: manifest.update(labels=["PAD", 1]),
        lambda manifest: manifest.update(precision=["fp32", "fp64"]),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: manifest.update(head="cls"),
        lambda manifest: manifest.update(variant="text_only"),
        lambda manifest: manifest.update(architecture={}),
        lambda manifest: manifest.update(labels=["\ud800", *manifest["labels"][1:]]),
        lambda manifest: manifest.update(parity={"fp32": {"prefix_error": None}}),
        lambda manifest: manifest["sizes"].update(layers=0),
        lambda manifest: manifest["sizes"].update(hidden=2**40),
        lambda manifest: manifest["sizes"].update(pictures=3),
        lambda manifest: manifest["limits"].update(max_length=-1),
        lambda manifest: manifest["limits"].update(max_objects=10**9),
        lambda manifest: manifest["preprocessing"].update(resize=100),
        lambda manifest: manifest["preprocessing"].update(crop=0),
        lambda manifest: manifest["preprocessing"].update(max_pixels=0),
    ],
)
def test_impossible_manifests_are_one_clear_line(copy: Path, change: Callable[[dict], None]) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=r"manifest\.json") as raised:
        Bundle.load(copy)
    assert "\n" not in str(raised.value)


def test_a_manifest_without_precision_or_labels_names_them(copy: Path) -> None:
    whole = (copy / "manifest.json").read_text()
    for name in ("precision", "labels"):
        for change, message in (
            (lambda manifest, name=name: manifest.pop(name), f"{name} is missing"),
            (lambda manifest, name=name: manifest.update({name: []}), rf"{name} is \[\]"),
        ):
            (copy / "manifest.json").write_text(whole)
            edit(copy, change)
            with pytest.raises(BundleError, match=message):
                Bundle.load(copy)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "\x00"])
def test_a_manifest_that_is_no_object(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.load(copy)


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", Path(__file__)):
        with pytest.raises(BundleError, match="is not a bundle"):
            Bundle.load(path)


def test_a_precision_that_is_not_there(ner_bundle: Path) -> None:
    with pytest.raises(BundleError, match="no int8 graphs, only fp32"):
        Bundle.load(ner_bundle).onnx("text", "int8")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "prefix is missing"),
        ({"prefix": np.zeros((4, 2, 512))}, r"prefix is float64 \[4, 2, 512\], the graphs read float32 \[4, 2, 512\]"),
        ({"prefix": np.zeros((2, 4, 512), np.float32)}, r"\[2, 4, 512\]"),
        ({"prefix": np.array([{}])}, r"prefix is object \[1\]"),
    ],
)
def test_a_blank_prefix_of_another_model_is_refused(copy: Path, arrays: dict, message: str) -> None:
    np.savez(copy / "blank.npz", **arrays)
    rewrite(copy, "blank.npz", (copy / "blank.npz").read_bytes())
    with pytest.raises(BundleError, match=f"blank.npz: .*{message}"):
        Pipeline.load(copy)
