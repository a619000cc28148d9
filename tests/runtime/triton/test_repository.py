"""What `hvpnet triton` writes: configurations, copies, digests; and what it refuses."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from rewrite import rewrite
from tiny_grounder import add_grounder
from tritonclient.grpc.model_config_pb2 import TYPE_FP16, TYPE_FP32, TYPE_INT64, TYPE_UINT8, ModelConfig

from hvpnet.cli import main
from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.backends.profiles import text_profiles, vision_profiles
from hvpnet_runtime.backends.tensorrt.record import BuildRecord
from hvpnet_runtime.bundle import Bundle, file_digests, sha256
from hvpnet_runtime.errors import BackendError, BundleError, RepositoryError, StaleEngineError
from hvpnet_runtime.triton import RepositoryOptions, write_repository
from hvpnet_runtime.triton.repository import Form

pytestmark = pytest.mark.heavy

GOLDEN = Path(__file__).parent / "golden"
ENGINE = "tensorrt-10.13.3.9-nvidia-l4"


def add_engine(bundle: Path, name: str = ENGINE, max_batch: int = 16) -> Bundle:
    """As `hvpnet build` writes one, but for the plans, which are not looked into."""
    folder = bundle / "engines" / name
    folder.mkdir(parents=True)
    plans = {"vision.plan": b"a vision plan", "text.plan": b"a text plan"}
    for file, content in plans.items():
        (folder / file).write_bytes(content)
    loaded = Bundle.load(bundle)
    sources = {path: facts.sha256 for path, facts in loaded.manifest.files.items() if path.startswith("onnx/")}
    BuildRecord(
        engine="tensorrt",
        version="10.13.3.9",
        cuda="12.9",
        driver="12.9",
        gpu="NVIDIA L4",
        compute_capability="8.9",
        precision="fp16",
        profiles={"vision": vision_profiles(), "text": text_profiles(64, max_batch)},
        sources=sources,
        files=file_digests(folder),
        networks={},
        settings={},
        seconds={},
    ).write(folder)
    return loaded


@pytest.fixture
def copied(ner_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to be changed."""
    return shutil.copytree(ner_bundle, tmp_path / "bundle")


def configs(repository: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text("utf-8") for path in sorted(repository.glob("*/config.pbtxt"))}


def assert_golden(repository: Path, case: str) -> None:
    """As the files say, and what Triton reads: a wrong field or value would not parse."""
    written = configs(repository)
    golden = {path.name.split(".")[1]: path.read_text("utf-8") for path in GOLDEN.glob(f"{case}.*.pbtxt")}
    assert written == golden
    for name, text in written.items():
        assert text_format.Parse(text, ModelConfig()).name == name


TYPES = {
    TYPE_UINT8: "tensor(uint8)",
    TYPE_INT64: "tensor(int64)",
    TYPE_FP16: "tensor(float16)",
    TYPE_FP32: "tensor(float)",
}


def assert_tensors_are_the_graphs(repository: Path) -> None:
    """Names, types and dims of every graph: what a configuration says and what the file has, after the batch."""
    for graph in repository.glob("*/1/model.onnx"):
        session = ort.InferenceSession(graph)
        config = text_format.Parse((graph.parents[1] / "config.pbtxt").read_text("utf-8"), ModelConfig())
        for own, said in ((session.get_inputs(), config.input), (session.get_outputs(), config.output)):
            found = {each.name: (each.type, [d if isinstance(d, int) else -1 for d in each.shape[1:]]) for each in own}
            dims = {each.name: list(each.reshape.shape if each.HasField("reshape") else each.dims) for each in said}
            assert found == {each.name: (TYPES[each.data_type], dims[each.name]) for each in said}


@pytest.mark.parametrize(
    ("case", "task", "variant", "options"),
    [
        ("ner", "ner", "full", RepositoryOptions()),
        ("re", "re", "full", RepositoryOptions(name="relations", max_batch=8, instances=3)),
        ("text_only", "ner", "text_only", RepositoryOptions()),
        ("self-contained", "ner", "full", RepositoryOptions("self-contained")),
    ],
)
def test_configurations(
    bundle_of: Callable[..., Path], tmp_path: Path, case: str, task: str, variant: str, options: RepositoryOptions
) -> None:
    models = write_repository(Bundle.load(bundle_of(task, variant)), tmp_path / "out", options)
    assert models == sorted(configs(tmp_path / "out"))
    assert_golden(tmp_path / "out", case)
    assert_tensors_are_the_graphs(tmp_path / "out")


def test_configurations_of_engines(copied: Path, tmp_path: Path) -> None:
    bundle = add_engine(copied)
    write_repository(bundle, tmp_path / "out", RepositoryOptions("tensorrt"))
    assert_golden(tmp_path / "out", "tensorrt")
    assert (tmp_path / "out" / "hvpnet_text" / "1" / "model.plan").read_bytes() == b"a text plan"


def test_fp16_is_preferred_and_another_precision_can_be_chosen(bundle_of: Callable[..., Path], tmp_path: Path) -> None:
    bundle = Bundle.load(bundle_of("ner", precisions=("fp32", "fp16")))
    write_repository(bundle, tmp_path / "default", RepositoryOptions())
    write_repository(bundle, tmp_path / "chosen", RepositoryOptions(graphs="fp32"))
    for name, precision, data_type in (("default", "fp16", "FP16"), ("chosen", "fp32", "FP32")):
        graph = tmp_path / name / "hvpnet_vision" / "1" / "model.onnx"
        assert sha256(graph) == bundle.manifest.files[f"onnx/{precision}/vision.onnx"].sha256
        written = configs(tmp_path / name)
        assert f'"prefix" data_type: TYPE_{data_type}' in written["hvpnet_vision"]
        assert_tensors_are_the_graphs(tmp_path / name)
    with pytest.raises(BundleError, match="'int4' graphs do not run on this backend"):
        write_repository(bundle, tmp_path / "other", RepositoryOptions(graphs="int4"))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("form", ["onnxruntime", "self-contained"])
def test_every_file_has_its_digest(ner_bundle: Path, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    write_repository(Bundle.load(ner_bundle), out, RepositoryOptions(form))
    lines = (out / "SHA256SUMS").read_text("utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert listed.keys() == files.keys() - {"SHA256SUMS"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == digest for name, digest in listed.items())
    inside = Bundle.load(out / "hvpnet" / "1" / "bundle", graphs=form == "self-contained")
    manifest = Bundle.load(ner_bundle).manifest
    if form == "self-contained":
        assert inside.manifest == manifest
    else:
        assert inside.manifest == replace(manifest, files=inside.manifest.files)
        assert set(inside.manifest.files) == {"tokenizer.json", "decoder.npz", "blank.npz"}


def test_the_self_contained_form_takes_engines_along(copied: Path, tmp_path: Path) -> None:
    write_repository(add_engine(copied), tmp_path / "out", RepositoryOptions("self-contained"))
    assert (tmp_path / "out/hvpnet/1/bundle/engines" / ENGINE / "build.json").is_file()


def test_engines_to_choose_from(copied: Path, tmp_path: Path) -> None:
    bundle, out = Bundle.load(copied), tmp_path / "out"
    add_engine(copied, name="tensorrt-rtx-1.3.0-portable")  # which Triton cannot run
    with pytest.raises(BackendError, match=r"no TensorRT engine: hvpnet build .* --engine tensorrt$"):
        write_repository(bundle, out, RepositoryOptions("tensorrt"))
    add_engine(copied)
    add_engine(copied, name="tensorrt-10.13.3.9-nvidia-a100", max_batch=4)
    for graphs in (None, "tensorrt-rtx-1.3.0-portable"):
        with pytest.raises(
            RepositoryError, match=rf'choose an engine: graphs="tensorrt-10.13.3.9-nvidia-a100" or graphs="{ENGINE}"'
        ):
            write_repository(bundle, out, RepositoryOptions("tensorrt", graphs=graphs))
    chosen = RepositoryOptions("tensorrt", graphs="tensorrt-10.13.3.9-nvidia-a100")
    with pytest.raises(RepositoryError, match="built for batches of 4, not of 5"):
        write_repository(bundle, out, replace(chosen, max_batch=5))
    write_repository(bundle, out, chosen)
    assert "max_batch_size: 4\n" in configs(out)["hvpnet"]
    assert "max_batch_size: 4\n" in configs(out)["hvpnet_text"]


def test_a_stale_engine_is_refused(copied: Path, tmp_path: Path) -> None:
    bundle = add_engine(copied)
    (copied / "engines" / ENGINE / "text.plan").write_bytes(b"another")
    with pytest.raises(StaleEngineError, match=r"text\.plan is missing, a link, or was changed"):
        write_repository(bundle, tmp_path / "out", RepositoryOptions("tensorrt"))


@pytest.mark.parametrize("place", ["engines/key", f"engines/{ENGINE}/key", f"engines/{ENGINE}/text.plan", "engines"])
def test_links_are_not_followed(copied: Path, tmp_path: Path, place: str) -> None:
    """A copy of what they point to, a private key for instance, would be let out with the repository."""
    bundle, outside = add_engine(copied), tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text("private")
    if (copied / place).exists():
        (copied / place).rename(copied / "before")
    (copied / place).symlink_to(outside if place == "engines" else outside / "key")
    with pytest.raises(BundleError, match=f"{copied / place} is a link"):
        write_repository(bundle, tmp_path / "out", RepositoryOptions("self-contained"))
    assert not (tmp_path / "out").exists()


def test_a_pipe_among_the_engines_is_not_waited_for(copied: Path, tmp_path: Path) -> None:
    bundle = add_engine(copied)
    os.mkfifo(copied / "engines" / ENGINE / "pipe")
    with pytest.raises(BundleError, match="a folder, device or pipe has its name"):
        write_repository(bundle, tmp_path / "out", RepositoryOptions("self-contained"))


@pytest.mark.parametrize("form", ["onnxruntime", "self-contained"])
def test_a_graph_whose_weights_are_elsewhere_is_not_copied(copied: Path, tmp_path: Path, form: Form) -> None:
    path = copied / "onnx/fp32/text.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    rewrite(copied, "onnx/fp32/text.onnx", path.read_bytes())
    with pytest.raises(BundleError, match=r"text\.onnx takes weights from another file"):
        write_repository(Bundle.load(copied), tmp_path / "out", RepositoryOptions(form))


def test_an_existing_folder_is_left_alone(ner_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(RepositoryError, match="exists: remove it or choose another"):
        write_repository(Bundle.load(ner_bundle), tmp_path, RepositoryOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_left_of_a_failure(ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, out = Bundle.load(ner_bundle), tmp_path / "new" / "out"

    def full(folder: Path, name: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    def damaged(folder: Path, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")

    with monkeypatch.context() as patched:
        patched.setattr("hvpnet_runtime.triton.repository.copy_regular", full)
        with pytest.raises(RepositoryError, match=r"could not be written: .*No space left"):
            write_repository(bundle, out, RepositoryOptions())
    with monkeypatch.context() as patched:
        patched.setattr("hvpnet_runtime.triton.repository.copy_regular", damaged)
        with pytest.raises(RepositoryError, match=r"the copy of .* is damaged"):
            write_repository(bundle, out, RepositoryOptions())
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "self-contained", "graphs": "fp16"}, "leave out the choice of graphs"),
        ({"name": "../hvpnet"}, "letters, digits and underscores"),
        ({"max_batch": 0}, "max-batch must be 1 or more, not 0"),
        ({"instances": -1}, "instances must be 1 or more, not -1"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        RepositoryOptions(**options)


def test_the_command(ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["triton", str(ner_bundle), str(tmp_path / "out"), "--max-batch", "8", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "repository": str(tmp_path / "out"),
        "form": "onnxruntime",
        "models": ["hvpnet", "hvpnet_text", "hvpnet_vision"],
    }
    assert "max_batch_size: 8\n" in configs(tmp_path / "out")["hvpnet_text"]
    assert main(arguments) == 1
    assert "exists: remove it" in capsys.readouterr().err


def test_the_python_model_finds_objects_itself(copied: Path, tmp_path: Path) -> None:
    """The bundle that is copied for it has the grounder, though other models run the graphs."""
    models = write_repository(Bundle.load(add_grounder(copied)), tmp_path / "out", RepositoryOptions())
    assert models == ["hvpnet", "hvpnet_text", "hvpnet_vision"]
    copy = Bundle.load(tmp_path / "out/hvpnet/1/bundle", graphs=False)
    assert {name for name in copy.manifest.files if name.endswith(".onnx")} == {"onnx/fp32/grounder.onnx"}
    assert load_cpu_grounder(copy).precision == "fp32"
