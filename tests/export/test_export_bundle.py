"""What a bundle holds, and that nothing is left where one could not be written."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from tokenizers import Tokenizer

from hvpnet import HVPNeT
from hvpnet.cli.main import command_parser
from hvpnet.modeling.tokenizer import MARKERS, load_tokenizer
from hvpnet_export import ExportError, IncompleteError, ParityError, ParityReport, compare, export_bundle
from hvpnet_export.bundle import write_arrays
from hvpnet_runtime.bundle import Bundle, Manifest, Precision
from hvpnet_runtime.errors import BundleError

pytestmark = pytest.mark.heavy


def manifest_of(bundle: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text("utf-8"), parse_constant=pytest.fail)
    return manifest


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A whole bundle


NER_FILES = {"blank.npz", "decoder.npz", "onnx/fp32/text.onnx", "onnx/fp32/vision.onnx", "tokenizer.json"}


def test_manifest_of_entities(ner_bundle: Path, ner_model: HVPNeT) -> None:
    manifest, config = manifest_of(ner_bundle), ner_model.config
    assert set(manifest["files"]) == NER_FILES
    assert {name: manifest[name] for name in ("schema_version", "task", "variant", "head", "labels", "precision")} == {
        "schema_version": 2,
        "task": "ner",
        "variant": "full",
        "head": None,
        "labels": list(config.labels),
        "precision": ["fp32"],
    }
    assert manifest["sizes"] == {
        "hidden": 128,
        "layers": 4,
        "heads": 2,
        "vocabulary": config.bert.vocab_size,
        "prefix_length": 4,
        "pictures": 4,
    }
    assert manifest["preprocessing"] == {
        "resize": 256,
        "crop": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "max_pixels": 50_000_000,
    }
    assert manifest["limits"] == {"max_length": 64, "max_objects": 3}
    assert manifest["calibration"] is None
    architecture = manifest["architecture"]
    architecture["resnet"]["layers"] = tuple(architecture["resnet"]["layers"])
    assert architecture == {"bert": asdict(config.bert), "resnet": asdict(config.resnet)}
    assert manifest["parity"]["fp32"]["passed"]
    packages = ("hvpnet", "torch", "transformers", "onnx", "onnxscript")
    assert manifest["produced_by"] == {name: version(name) for name in packages}


def test_manifest_of_relations(re_bundle: Path, re_model: HVPNeT) -> None:
    manifest = manifest_of(re_bundle)
    assert set(manifest["files"]) == NER_FILES - {"decoder.npz"}
    assert (manifest["task"], manifest["head"]) == ("re", "markers")
    assert manifest["labels"] == list(re_model.config.labels)
    assert manifest["sizes"]["vocabulary"] == re_model.config.bert.vocab_size


@pytest.mark.parametrize("kind", ["ner", "re"])
def test_a_manifest_is_read_as_it_was_written(bundle_of: Any, kind: str) -> None:
    written = manifest_of(bundle_of(kind))
    read = Manifest.from_dict(written)
    assert json.loads(read.to_json()) == written
    assert "grounder" not in written
    assert {**read.to_dict(), "grounder": None} == {"schema_version": 2, **asdict(read)}


@pytest.mark.parametrize(
    ("precision", "variant", "options"),
    [
        (["fp32"], "full", "--precision fp32 --max-length 64"),
        (["fp32", "fp16"], "1t3", "--precision fp32,fp16 --max-length 64"),
        (["int8"], "flat", "--precision int8 --calibration DATA --max-length 64"),
        (["fp32", "int8"], "only_obj", "--precision fp32,int8 --calibration DATA --max-length 64 --variant only_obj"),
        (None, None, "--precision fp32 --max-length 64"),
        ([{}, "fp16"], 1, "--precision fp16 --max-length 64"),
        (5, [], "--precision fp32 --max-length 64"),
    ],
)
def test_an_older_bundle_is_refused_with_the_command_that_makes_it_anew(
    text_bundle: Path, tmp_path: Path, precision: Any, variant: Any, options: str
) -> None:
    shutil.copytree(text_bundle, tmp_path / "bundle")
    older = manifest_of(text_bundle) | {"schema_version": 1, "precision": precision, "variant": variant}
    older["limits"]["max_pixels"] = older["preprocessing"].pop("max_pixels")  # where schema 1 has it
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(older), "utf-8")
    with pytest.raises(BundleError) as caught:
        Bundle.load(tmp_path / "bundle")
    said, _, command = str(caught.value).partition("make the bundle anew with ")
    assert "its schema is 1, this version reads 2: " in said
    assert command == f"hvpnet export CHECKPOINT --tokenizer DIR --out NEW_BUNDLE {options}"
    verb, *arguments = command.split()
    assert verb == "hvpnet"
    parsed = command_parser().parse_args(arguments)  # it is a command that this version takes
    assert ("int8" in parsed.precision) == (parsed.calibration is not None)
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps(older | {"task": "re", "limits": None}), "utf-8")
    with pytest.raises(BundleError, match="--labels LABELS") as caught:
        Bundle.load(tmp_path / "bundle")
    assert "--max-length" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ner", "re"])
def test_digests_are_true(bundle_of: Any, kind: str) -> None:
    bundle = bundle_of(kind)
    contents = files_of(bundle)
    assert set(contents) == set(manifest_of(bundle)["files"]) | {"manifest.json"}
    for name, facts in manifest_of(bundle)["files"].items():
        assert facts == {"sha256": hashlib.sha256(contents[name]).hexdigest(), "bytes": len(contents[name])}
    assert Bundle.load(bundle).task == kind


def test_decoder(ner_bundle: Path, ner_model: HVPNeT) -> None:
    with np.load(ner_bundle / "decoder.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"start_transitions", "end_transitions", "transitions"}
        for name in arrays:
            assert arrays[name].dtype == np.float32
            np.testing.assert_array_equal(arrays[name], getattr(ner_model.crf, name).detach().numpy())


@pytest.mark.parametrize("kind", [("ner", "full"), ("ner", "1t3"), ("ner", "only_obj"), ("re", "flat")], ids="-".join)
def test_blank(make_model: Any, tmp_path: Path, kind: Any) -> None:
    """The prefix of zeros after normalisation."""
    model: HVPNeT = make_model(*kind)
    write_arrays(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"blank.npz"} | (
        {"decoder.npz"} if kind[0] == "ner" else set()
    )
    with torch.no_grad():
        (expected,) = model.encode_pictures(torch.zeros(1, 3, 224, 224)).numpy()
    with np.load(tmp_path / "blank.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"prefix"}
        assert arrays["prefix"].dtype == np.float32
        assert arrays["prefix"].shape == (4, 2, 4 * 128)
        np.testing.assert_array_equal(arrays["prefix"], expected)


def test_blank_of_a_bundle_in_every_precision(
    bundle_of: Any, ner_bundle: Path, quantisable: Any, ner_model: Any
) -> None:
    """It is the eager model's, whatever the graphs round."""
    rounded = bundle_of("ner", precisions=("fp32", "int8"))
    for folder, model in ((ner_bundle, ner_model), (rounded, quantisable("ner"))):
        bundle = Bundle.load(folder)
        with torch.no_grad():
            (expected,) = model.encode_pictures(torch.zeros(1, 3, 224, 224)).numpy()
        assert bundle.blank_prefix().shape == bundle.sizes.prefix_shape
        np.testing.assert_allclose(bundle.blank_prefix(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["ner", "re"])
def test_tokenizer(bundle_of: Any, tokenizer_dir: Path, kind: Any) -> None:
    written = Tokenizer.from_file(str(bundle_of(kind) / "tokenizer.json"))
    given = load_tokenizer(tokenizer_dir, kind)
    assert json.loads(written.to_str()) == json.loads(given.to_str())
    assert (written.token_to_id("<s>") is not None) == (kind == "re")


def test_no_pickle_and_no_path_of_this_machine(ner_bundle: Path) -> None:
    for name, content in files_of(ner_bundle).items():
        assert not content.startswith(b"\x80"), name
        assert str(ROOT).encode() not in content, name
        assert sys.prefix.encode() not in content, name
        assert b".py" not in content, name


def test_others_may_read_it(ner_bundle: Path) -> None:
    assert ner_bundle.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in ner_bundle.rglob("*"))
    assert not list(ner_bundle.parent.glob(f".{ner_bundle.name}.*"))  # no stage beside it


# Writing one; the graphs are exported once and copied in


@pytest.fixture(scope="session")
def text_model(make_model: Callable[..., HVPNeT]) -> HVPNeT:
    return make_model("ner", "text_only")


@pytest.fixture(scope="session")
def text_bundle(bundle_of: Any, text_model: HVPNeT) -> Path:
    bundle: Path = bundle_of("ner", "text_only")
    return bundle


@pytest.fixture
def write(
    text_model: HVPNeT, text_bundle: Path, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], ParityReport]:
    """Writes a bundle of `text_model` in a moment."""

    def copy_graph(_model: HVPNeT, path: Path, _precision: Precision) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(text_bundle / "onnx" / "fp32" / path.name, path)

    monkeypatch.setattr("hvpnet_export.bundle.export_text", copy_graph)
    return lambda out: export_bundle(text_model, load_tokenizer(tokenizer_dir, "ner"), out)


def test_text_only_bundle(text_bundle: Path) -> None:
    manifest = manifest_of(text_bundle)
    assert set(manifest["files"]) == NER_FILES - {"blank.npz", "onnx/fp32/vision.onnx"}
    assert manifest["sizes"]["pictures"] == 0
    assert manifest["architecture"]["resnet"] is None
    assert manifest["parity"]["fp32"]["prefix_error"] == 0
    assert Bundle.load(text_bundle).manifest.variant == "text_only"
    assert not (text_bundle / "blank.npz").exists()


def test_parity_report_is_in_the_manifest(text_bundle: Path, text_model: HVPNeT) -> None:
    report = compare(text_model, text_bundle)
    assert report.passed
    assert manifest_of(text_bundle)["parity"] == {"fp32": json.loads(json.dumps(report.to_dict(), allow_nan=False))}


def test_same_model_same_bundle(write: Any, text_bundle: Path, tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    assert files_of(tmp_path / "bundle") == files_of(text_bundle)


def test_missing_parents_are_made(write: Any, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "bundle"
    assert write(out)["fp32"].passed
    assert Bundle.load(out).task == "ner"
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_progress_names_the_steps(text_model: HVPNeT, write: Any, tokenizer_dir: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    export_bundle(text_model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle", steps.append)
    assert steps == [
        "exporting the fp32 text.onnx",
        "verifying the fp32 graphs against the eager model",
        "writing the manifest",
    ]


def refused(write: Any, out: Path, error: type[ExportError] = ExportError) -> str:
    """The one-line error of an export that leaves everything beside `out` as it was."""
    before = sorted(out.parent.rglob("*")) if out.parent.is_dir() else None
    with pytest.raises(error) as caught:
        write(out)
    assert before is None or sorted(out.parent.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["bundle", "empty folder", "file"])
def test_an_existing_place_is_left_alone(write: Any, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "bundle"
    if kind == "file":
        out.write_text("mine", "utf-8")
    else:
        out.mkdir()
    if kind == "bundle":
        (out / "manifest.json").write_text("mine", "utf-8")
    before = files_of(tmp_path)
    assert refused(write, out) == f"{out} exists: remove it or choose another, out=FOLDER"
    assert files_of(tmp_path) == before


def test_a_place_taken_meanwhile_is_left_alone(
    text_model: HVPNeT, write: Any, tokenizer_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"

    def take(step: str) -> None:
        if step == "writing the manifest":
            out.mkdir()
            (out / "theirs").touch()

    with pytest.raises(ExportError, match="could not be written"):
        export_bundle(text_model, load_tokenizer(tokenizer_dir, "ner"), out, take)
    assert sorted(tmp_path.rglob("*")) == [out, out / "theirs"]


def test_a_parent_that_is_a_file(write: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    for out in (tmp_path / "file" / "bundle", tmp_path / "file" / "a" / "bundle"):
        assert refused(write, out).startswith(f"the bundle could not be written to {out}: ")
    assert files_of(tmp_path) == {"file": b"mine"}


def test_tokenizer_of_another_size(text_model: HVPNeT, tokenizer_dir: Path, tmp_path: Path) -> None:
    with_markers = load_tokenizer(tokenizer_dir, "re")
    size = text_model.config.bert.vocab_size
    message = refused(lambda out: export_bundle(text_model, with_markers, out), tmp_path / "bundle")
    assert f"the tokeniser has {size + 4} pieces, the checkpoint was trained with {size}" in message


def test_tokenizer_without_markers(re_model: HVPNeT, tokenizer_dir: Path, tmp_path: Path) -> None:
    other = load_tokenizer(tokenizer_dir, "ner")
    other.add_special_tokens(["<a>", "</a>", "<b>", "</b>"])
    message = refused(lambda out: export_bundle(re_model, other, out), tmp_path / "bundle")
    assert message == f"the tokeniser lacks the entity markers {' '.join(MARKERS)}"


def test_a_graph_that_differs_leaves_nothing(make_model: Any, write: Any, tokenizer_dir: Path, tmp_path: Path) -> None:
    other = make_model("ner", "text_only", seed=1)  # `write` puts the graph of seed 0 into its bundle
    tokenizer = load_tokenizer(tokenizer_dir, "ner")
    message = refused(lambda out: export_bundle(other, tokenizer, out), tmp_path / "bundle", ParityError)
    assert message.startswith("the graphs differ too much (tolerance 0.001): prefix within 0.0e+00, outputs within ")
    assert list(tmp_path.iterdir()) == []


TOO_LARGE = "a weight is too large for FP16"


@pytest.fixture
def fp16_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """FP16 cannot be made."""

    def to_precision(model: HVPNeT, precision: Precision) -> HVPNeT:
        if precision == "fp16":
            raise ExportError(TOO_LARGE)
        return model

    monkeypatch.setattr("hvpnet_export.bundle.to_precision", to_precision)


@pytest.mark.usefixtures("write", "fp16_fails")
@pytest.mark.parametrize("precisions", [("fp32", "fp16"), ("fp16", "fp32")])
def test_what_passed_is_kept_where_asked(
    text_model: HVPNeT, text_bundle: Path, tokenizer_dir: Path, tmp_path: Path, precisions: tuple[Precision, ...]
) -> None:
    out, tokenizer = tmp_path / "bundle", load_tokenizer(tokenizer_dir, "ner")
    with pytest.raises(IncompleteError, match=f"bundle holds fp32, but not fp16: {TOO_LARGE}"):
        export_bundle(text_model, tokenizer, out, precisions=precisions, keep_going=True)
    bundle = Bundle.load(out)
    assert (bundle.manifest.precision, list(bundle.manifest.parity)) == (("fp32",), ["fp32"])
    assert files_of(out).keys() == files_of(text_bundle).keys()
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("write", "fp16_fails")
def test_what_passed_is_lost_where_not_asked(text_model: HVPNeT, tokenizer_dir: Path, tmp_path: Path) -> None:
    tokenizer, out = load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle"
    message = refused(lambda to: export_bundle(text_model, tokenizer, to, precisions=("fp32", "fp16")), out)
    cure = "keep_going=True writes the bundle with fp32 alone"
    assert message == f"fp16: {TOO_LARGE}: {cure}"
    for kept in (True, False):  # where nothing passed there is no bundle
        message = refused(
            lambda to, kept=kept: export_bundle(text_model, tokenizer, to, precisions=("fp16",), keep_going=kept), out
        )
        assert message == TOO_LARGE
    assert list(tmp_path.iterdir()) == []


FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "step",
    [
        "hvpnet_export.bundle.export_text",
        "hvpnet_export.bundle.write_arrays",
        "hvpnet_export.bundle.file_digests",
        "hvpnet_runtime.bundle.staging.flush",
        "pathlib.Path.write_text",
        "pathlib.Path.rename",
        "tempfile.mkdtemp",
    ],
)
def test_a_full_disk_leaves_nothing(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise FULL_DISK

    with monkeypatch.context() as patch:
        patch.setattr(step, fail)
        assert "No space left on device" in refused(write, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "bundle")  # and with room again it works


def test_an_interrupt_leaves_nothing(text_model: HVPNeT, write: Any, tokenizer_dir: Path, tmp_path: Path) -> None:
    def interrupt(step: str) -> None:
        if step.startswith("verifying"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(text_model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle", interrupt)
    assert list(tmp_path.iterdir()) == []


# In processes of their own


SETUP = """
import os, resource, signal, sys
from pathlib import Path
from hvpnet import BertConfig, HVPNeT, HVPNeTConfig, ResNetConfig
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import ExportError, export_bundle
import torch

tokenizer, out = load_tokenizer(sys.argv[1], "ner"), Path(sys.argv[2])

def model(variant):
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    bert = BertConfig(size, 64, 1, 1, 64, 32)
    resnet = None if variant == "text_only" else ResNetConfig("basic", (1, 1, 1, 1))
    labels = ("O", "B-PER", "I-PER")
    return HVPNeT(HVPNeTConfig("ner", labels, bert, resnet, variant, projection_size=16, max_length=32)).eval()
"""

SCRIPT = (
    SETUP
    + """
import hvpnet_export.bundle
from hvpnet_export.graphs import export_text

def write_a_megabyte(model, path, precision):
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(1 << 20))

def kill(step):
    if step.startswith("verifying"):
        os.kill(os.getpid(), signal.SIGKILL)

hvpnet_export.bundle.export_text = write_a_megabyte
child = os.fork()
if not child:
    export_bundle(model("text_only"), tokenizer, out / "killed", kill)
killed_by = os.WTERMSIG(os.waitpid(child, 0)[1])

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails with an OSError

def failure(limit):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        export_bundle(model("text_only"), tokenizer, out / "full")
    except ExportError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

hvpnet_export.bundle.export_text = lambda model, path, precision: None
in_tokenizer = failure(2_000)
hvpnet_export.bundle.export_text = export_text
in_graph = failure(20_000)
export_bundle(model("full"), tokenizer, out / "quiet")
(out / "report").write_text(f"{killed_by}\\n{in_tokenizer}\\n{in_graph}\\n")
"""
)


@pytest.fixture(scope="module")
def elsewhere(
    tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which another process was killed, ran out of room twice, and then exported a bundle."""
    out = tmp_path_factory.mktemp("elsewhere")
    path = os.pathsep.join([str(ROOT), str(ROOT / "export"), str(ROOT / "runtime")])
    finished = subprocess.run(
        [sys.executable, "-W", "default", "-c", SCRIPT, str(tokenizer_dir), str(out)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": path},
    )
    return out, finished


def test_exporting_is_quiet(elsewhere: Any) -> None:
    out, finished = elsewhere
    assert (finished.stdout, finished.stderr, finished.returncode) == ("", "", 0)
    assert Bundle.load(out / "quiet").task == "ner"


def test_a_disk_that_is_really_full_leaves_nothing(elsewhere: Any) -> None:
    out, _ = elsewhere
    failures = (out / "report").read_text("utf-8").splitlines()[1:]
    assert len(failures) == 2
    assert all(line.startswith(f"the bundle could not be written to {out / 'full'}: ") for line in failures)
    assert all("File too large" in line for line in failures)
    assert not [path for path in out.iterdir() if "full" in path.name]


def test_a_kill_leaves_no_bundle(elsewhere: Any) -> None:
    out, _ = elsewhere
    assert (out / "report").read_text("utf-8").startswith("9\n")
    assert not (out / "killed").exists()
    (stage,) = [path for path in out.iterdir() if "killed" in path.name]
    assert stage.name.startswith(".killed.")  # hidden, and not a bundle's name
    assert not (stage / "manifest.json").exists()
