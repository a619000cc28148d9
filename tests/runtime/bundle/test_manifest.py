"""Loading checks schema, presence and digests before anything is parsed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hvpnet_runtime import Bundle, BundleError, Pipeline


@pytest.fixture
def copy(ner_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ner_bundle, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_reads_what_export_wrote(ner_bundle: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    assert (bundle.task, bundle.manifest.variant, bundle.manifest.head, bundle.manifest.limits.max_length) == (
        "ner",
        "full",
        None,
        64,
    )
    assert bundle.labels[:3] == ("PAD", "O", "B-MISC")
    assert bundle.sizes.prefix_shape == (4, 2, 4 * 128)
    assert bundle.sizes.pictures == 4
    assert (
        bundle.manifest.preprocessing.resize,
        bundle.manifest.preprocessing.crop,
        bundle.manifest.preprocessing.max_pixels,
    ) == (256, 224, 50_000_000)
    assert bundle.onnx("text").is_file()


@pytest.mark.parametrize("name", ["tokenizer.json", "decoder.npz", "onnx/fp32/vision.onnx", "onnx/fp32/text.onnx"])
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
    monkeypatch.setattr("hvpnet_runtime.preprocessing.prepare.Tokenizer.from_file", lambda _: pytest.fail("parsed"))
    with pytest.raises(BundleError):
        Pipeline.load(copy)


def test_schemas_of_other_versions_say_what_to_do(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(schema_version=2))
    with pytest.raises(BundleError, match="schema 2, this runtime reads schema 1: upgrade hvpnet"):
        Bundle.load(copy)
    edit(copy, lambda manifest: manifest.update(schema_version=0))
    with pytest.raises(BundleError, match="export the checkpoint again"):
        Bundle.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("labels"),
        lambda manifest: manifest.pop("sizes"),
        lambda manifest: manifest["sizes"].update(extra=1),
        lambda manifest: manifest.update(task="translation"),
        lambda manifest: manifest.update(head="tail"),
        lambda manifest: manifest.files.pop("onnx/fp32/text.onnx"),
        lambda manifest: manifest.files.update({"../outside": {"bytes": 1, "sha256": ""}}),
        lambda manifest: manifest.files["tokenizer.json"].pop("sha256"),
        lambda manifest: manifest.pop("schema_version"),
        lambda manifest: manifest.update(limits=3),
    ],
)
def test_impossible_manifests_are_one_clear_line(copy: Path, change: Callable[[dict], None]) -> None:
    edit(copy, change)
    with pytest.raises(BundleError, match=r"manifest\.json") as raised:
        Bundle.load(copy)
    assert "\n" not in str(raised.value)


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
