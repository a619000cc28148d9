"""Engines of TensorRT for RTX, really built: it needs a GPU to run them, not to build them."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any

import fake_gpu
import numpy as np
import onnx
import pytest
import tensorrt_rtx
from fake_cuda import FAKE_GPU, FakeCuda, FakeRuntime
from json_keys import assert_snake_case
from kinds import KINDS
from onnx import TensorProto, helper
from rewrite import resaved
from tiny_grounder import add_grounder

from hvpnet.cli import main
from hvpnet_runtime import BackendError, Bundle, BundleError
from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.backends.cuda import Device, cuda_runtime_version, find_device
from hvpnet_runtime.backends.profiles import Bucket, Profile, choose_bucket, text_profiles, vision_profiles
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.library import Library, load_library
from hvpnet_runtime.backends.tensorrt.network import parse
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, built_engines, engine_folder, find_engine
from hvpnet_runtime.bundle import FileDigest, Precision, graph_specs, sha256
from hvpnet_runtime.errors import BuildError

pytestmark = pytest.mark.heavy

OPTIONS = BuildOptions("tensorrt-rtx", max_batch=2, max_length=16, gpus=("8.9",))
"""The least that is worth a build: engines take seconds for every profile and GPU."""

GPU = Device("NVIDIA Fake 1", "8.9", "13.0")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_builds(copy_of: Callable[..., Bundle], api: Library, kind: tuple[str, ...]) -> None:
    bundle, said = copy_of(*kind), []
    before = files(bundle.path)
    for_all = kind == KINDS[0]  # GPUs, as where nobody chooses
    folder = build_engines(bundle, replace(OPTIONS, gpus=()) if for_all else OPTIONS, said.append)
    assert folder == engine_folder(bundle, api, None, "fp16")
    graphs = ("text",) if kind[1] == "text_only" else ("vision", "text")
    assert {path.name for path in folder.iterdir()} == {"build.json"} | {f"{graph}.plan" for graph in graphs}
    record = BuildRecord.read(folder)
    assert (record.engine, record.version, record.precision) == ("tensorrt-rtx", tensorrt_rtx.__version__, "fp16")
    assert record.cuda == cuda_runtime_version()
    assert record.gpus == (("8.0", "8.6", "8.9", "12.0", "12.1") if for_all else ("8.9",))
    assert record.fused_attention == {"fused": 4, "layers": 4}
    if find_device() is None:
        assert (record.gpu, record.compute_capability, record.driver) == (None, None, None)
    assert record.profiles["text"] == text_profiles(16, 2)
    assert record.profiles.get("vision", vision_profiles()) == vision_profiles()
    for graph in graphs:
        plan, onnx_file = folder / f"{graph}.plan", f"onnx/fp16/{graph}.onnx"
        assert record.sources[onnx_file] == sha256(bundle.path / onnx_file)
        assert record.files[plan.name] == FileDigest(sha256(plan), plan.stat().st_size)
        assert plan.stat().st_size > (bundle.path / onnx_file).stat().st_size / 2  # the weights are in it
        assert record.networks[graph] == expected_network(kind, graph)
        assert record.seconds[graph] > 0
        assert len(record.kernels[graph]) == len(record.profiles[graph])
        assert f"parsing {graph}.onnx" in said
        assert any(line.startswith(f"{graph}.plan: building engine, step 1 of ") for line in said)
    after = files(bundle.path)
    assert before == {name: digest for name, digest in after.items() if not name.startswith("engines/")}
    assert find_engine(Bundle.load(bundle.path), api, GPU) == (folder, record)


def expected_network(kind: tuple[str, ...], graph: str) -> dict[str, Any]:
    """Layers of the tiny models: four of BERT, and a ResNet of four basic blocks."""
    task, variant, head = kind
    if graph == "vision":
        convolutions = {"CONVOLUTION": {"HALF": 1 + 4 * 2 + 3}}  # the first, two a block, three on shortcuts
        gated = {"MATRIX_MULTIPLY": {"HALF": 4}, "SOFTMAX": {"FLOAT": 1}}  # projection, gates, weighted sum
        layers = {"MATRIX_MULTIPLY": {"HALF": 4 * 2}} if variant == "1t3" else gated  # a projection a stage
        return {"inputs": {"images": "UINT8"}, "outputs": {"prefix": "HALF"}, "layers": convolutions | layers}
    inputs = {"input_ids": "INT64", "attention_mask": "INT64"} | ({"prefix": "HALF"} if variant != "text_only" else {})
    if (task, head) == ("re", "markers"):
        inputs |= {"head_index": "INT64", "tail_index": "INT64"}
    layers = {
        "MATRIX_MULTIPLY": {"FLOAT": 1, "HALF": 4 * 8},  # the classifier; six linear layers and two of attention
        "NORMALIZATION": {"FLOAT": 1 + 4 * 2},
        "SOFTMAX": {"FLOAT": 4},
    }
    return {"inputs": inputs, "outputs": {"emissions" if task == "ner" else "logits": "FLOAT"}, "layers": layers}


def test_int8_engines_keep_attention_in_one_kernel(bundle_of: Callable[..., Path], tmp_path: Path) -> None:
    """The library fuses none where Q/DQ stands in FP32 graphs."""
    kind = ("ner", "full", "markers")
    source = bundle_of(*kind, precisions=("fp16", "int8_fp16"))
    bundle = Bundle.load(Path(shutil.copytree(source, tmp_path / "bundle")))
    record = BuildRecord.read(build_engines(bundle, replace(OPTIONS, precision="int8_fp16")))
    assert (record.precision, record.fused_attention) == ("int8_fp16", {"fused": 4, "layers": 4})
    assert set(record.sources) == {"onnx/int8_fp16/vision.onnx", "onnx/int8_fp16/text.onnx"}
    weights = {"vision": 1 + 4 * 2 + 3, "text": 4 * 6}
    shared = {"vision": 3, "text": 4 * 2}  # shortcuts read what the next convolution does; so do query, key and value
    for graph, network in record.networks.items():
        rounded = {"QUANTIZE": {"INT8": weights[graph] - shared[graph]}}
        assert network == expected_network(kind, graph) | {"layers": expected_network(kind, graph)["layers"] | rounded}


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_fp32_engines_for_a_chosen_gpu_and_the_timing_cache(bundle: Bundle) -> None:
    """As `tensorrt` would: the libraries share the API, so the RTX one stands in for it."""
    fake = FakeRuntime(count=2)
    api = replace(load_library("tensorrt-rtx"), engine="tensorrt")
    options = BuildOptions("tensorrt", precision="fp32", max_batch=1, max_length=20, workspace=2**28, device=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hvpnet_runtime.backends.tensorrt.build.load_library", lambda _: api)
        patch.setattr(
            "hvpnet_runtime.backends.tensorrt.build.Cuda", lambda number, _: FakeCuda(fake=fake, ordinal=number)
        )
        folder = build_engines(bundle, options)
        assert fake.current[get_ident()] == 1  # TensorRT builds on the device of the thread
        assert folder == engine_folder(bundle, api, FAKE_GPU, "fp32")
        assert (folder.parent / f"{folder.name}.timing").is_file()
        first = BuildRecord.read(folder)
        assert build_engines(bundle, options) == folder  # with the cache of the first
    record = BuildRecord.read(folder)
    assert record.profiles == {"text": tuple(Profile((1, 1, 1), length) for length in (16, 20))}
    assert (record.gpu, record.gpus) == (FAKE_GPU.name, (FAKE_GPU.compute_capability,))
    assert record.networks == first.networks
    assert record.networks["text"]["layers"]["MATRIX_MULTIPLY"] == {"FLOAT": 33}
    assert record.settings == {"workspace": 2**28, "optimisation_level": None}


def test_profiles_reach_the_library(api: Library, copy_of: Callable[..., Bundle]) -> None:
    bundle = copy_of("re", "full", "markers")
    profile = api.trt.Builder(api.logger).create_optimization_profile()
    specs = graph_specs(bundle.manifest, "fp32")
    for name, shapes in Profile((2, 8, 32), 64).shapes(specs["text"]).items():
        profile.set_shape(name, *shapes)
    found = {
        name: [tuple(shape) for shape in profile.get_shape(name)] for name in ("input_ids", "prefix", "head_index")
    }
    assert found == {
        "input_ids": [(2, 64), (8, 64), (32, 64)],
        "prefix": [(rows, 4, 4, 2, 4 * 128) for rows in (2, 8, 32)],
        "head_index": [(2,), (8,), (32,)],
    }
    assert Profile((1, 1, 1)).shapes(specs["vision"]) == {"images": [(1, 224, 224, 3)] * 3}


def test_buckets() -> None:
    profiles = text_profiles(80, 32)
    assert [(profile.length, profile.batch) for profile in profiles] == [
        (length, batch) for length in (16, 24, 32, 48, 64, 80) for batch in ((1, 1, 1), (2, 8, 32))
    ]
    assert choose_bucket(profiles, 1, 1) == Bucket(1, 16, 0)
    assert choose_bucket(profiles, 1, 42) == Bucket(1, 48, 6)
    assert choose_bucket(profiles, 3, 33) == Bucket(4, 48, 7)
    assert choose_bucket(profiles, 17, 80) == Bucket(32, 80, 11)
    assert choose_bucket(text_profiles(80, 6), 5, 80) == Bucket(6, 80, 11)  # never more than the engine takes
    for rows, length in ((33, 10), (1, 81)):
        with pytest.raises(
            BackendError,
            match=f"{rows} rows of {length} pieces were asked for, and the largest .* 32 rows of 80 pieces",
        ):
            choose_bucket(profiles, rows, length)


def test_the_pictures_of_one_tweet_have_a_profile_of_their_own() -> None:
    profiles = vision_profiles()
    assert [profile.batch for profile in profiles] == [(1, 1, 1), (4, 4, 4), (2, 8, 16)]
    found = {rows: choose_bucket(profiles, rows) for rows in (1, 2, 3, 4, 5, 9, 16)}
    assert {rows: (bucket.rows, bucket.profile) for rows, bucket in found.items()} == {
        1: (1, 0),
        2: (2, 2),
        3: (4, 1),
        4: (4, 1),  # two run as two, though four would hold them
        5: (8, 2),
        9: (16, 2),
        16: (16, 2),
    }
    assert [profile.batch for profile in vision_profiles(4)] == [(1, 1, 1), (2, 4, 4)]


# Builds that fail


def test_a_failed_build_names_the_node_and_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    path = bundle.onnx("text", "fp16")
    model = onnx.load(path)
    (softmax, *_) = [node for node in model.graph.node if node.op_type == "Softmax"]
    softmax.op_type, softmax.domain, softmax.name = "Wizardry", "nowhere", "the_culprit"
    model.opset_import.append(helper.make_opsetid("nowhere", 1))
    onnx.save(model, path)
    bundle = resaved(bundle, path)
    before = files(bundle.path)
    with pytest.raises(BuildError, match=r"cannot parse .*text\.onnx: .*the_culprit \(Wizardry\)") as caught:
        build_engines(bundle, OPTIONS)
    assert "\n" not in str(caught.value)
    assert files(bundle.path) == before
    assert not (bundle.path / "engines").exists()


def test_a_failed_build_keeps_the_engines_that_were_there(bundle: Bundle) -> None:
    folder = build_engines(bundle, replace(OPTIONS, precision="fp32", max_batch=1))
    before = files(bundle.path)
    bundle.onnx("text", "fp16").write_bytes(bundle.onnx("text", "fp32").read_bytes())
    bundle = resaved(bundle, bundle.onnx("text", "fp16"))
    with pytest.raises(BuildError, match=r"text.onnx is not a fp16 graph.*; export the checkpoint again"):
        build_engines(bundle, OPTIONS)
    assert {name: digest for name, digest in files(bundle.path).items() if "engines" in name} == {
        name: digest for name, digest in before.items() if "engines" in name
    }
    assert BuildRecord.read(folder).precision == "fp32"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(("precision", "other"), [("fp16", "int8_fp16"), ("int8_fp16", "fp16")])
def test_a_graph_that_rounds_otherwise_than_its_precision_says_is_refused(
    bundle_of: Callable[..., Path], tmp_path: Path, precision: Precision, other: Precision
) -> None:
    source = bundle_of("ner", "text_only", precisions=("fp16", "int8_fp16"))
    bundle = Bundle.load(Path(shutil.copytree(source, tmp_path / "bundle")))
    shutil.copy(bundle.onnx("text", other), bundle.onnx("text", precision))
    with pytest.raises(BuildError, match=f"text.onnx is not a {precision} graph"):
        build_engines(resaved(bundle, bundle.onnx("text", precision)), replace(OPTIONS, precision=precision))


def test_a_graph_with_other_inputs_is_refused(bundle: Bundle) -> None:
    other = replace(bundle, manifest=replace(bundle.manifest, head="markers"))
    with pytest.raises(BundleError, match=r"text\.onnx has the inputs .*, the manifest's model .*head_index"):
        build_engines(other, OPTIONS)


def test_a_softmax_in_half_precision_is_refused(bundle: Bundle) -> None:
    path = bundle.onnx("text", "fp16")
    model = onnx.load(path)
    (softmax, *_) = [node for node in model.graph.node if node.op_type == "Softmax"]
    narrow = helper.make_node("Cast", [softmax.input[0]], ["narrow"], to=TensorProto.FLOAT16)
    wide = helper.make_node("Cast", ["narrow_softmax"], [softmax.output[0]], to=TensorProto.FLOAT)
    softmax.input[0], softmax.output[0] = "narrow", "narrow_softmax"
    place = list(model.graph.node).index(softmax)
    model.graph.node.insert(place + 1, wide)
    model.graph.node.insert(place, narrow)
    del model.graph.value_info[:]
    onnx.save(model, path)
    with pytest.raises(BuildError, match="is not a fp16 graph"):
        build_engines(resaved(bundle, path), OPTIONS)


def test_what_cannot_be_built_is_said_before_anything_is(bundle: Bundle, ner_bundle: Path) -> None:
    with pytest.raises(BuildError, match="max-seq 65 is beyond the bundle's limit of 64 pieces"):
        build_engines(bundle, replace(OPTIONS, max_length=65))
    cure = 'export the checkpoint again with hvpnet export --precision fp32,fp16, or build with precision="fp32"'
    with pytest.raises(BundleError, match=f"has no fp16 graphs, only fp32: {cure}"):
        build_engines(Bundle.load(ner_bundle), OPTIONS)
    for name, value in {"max_batch": 0, "max_length": 2, "workspace": 0, "optimisation_level": 6}.items():
        with pytest.raises(BuildError, match=str(value)):
            BuildOptions("tensorrt-rtx", **{name: value})
    with pytest.raises(BuildError, match="'int8' graphs are not built: choose fp16 or fp32 or int8_fp16"):
        BuildOptions("tensorrt-rtx", "int8")


def test_a_damaged_onnx_file_is_a_typed_error(api: Library) -> None:
    with pytest.raises(BuildError, match=r"cannot parse .*text\.onnx"):
        parse(api, api.trt.Builder(api.logger), b"no protobuf", Path("text.onnx"))


def test_a_graph_whose_weights_are_elsewhere_is_not_built(bundle: Bundle) -> None:
    path = bundle.onnx("text", "fp16")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(BundleError, match=r"text\.onnx takes weights from another file"):
        build_engines(resaved(bundle, path), OPTIONS)
    assert not (bundle.path / "engines").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # this library has timing caches in name only
def test_nothing_is_written_through_a_link_in_the_place_of_the_timing_cache(bundle: Bundle, tmp_path: Path) -> None:
    api = replace(load_library("tensorrt-rtx"), engine="tensorrt")
    folder = engine_folder(bundle, api, find_device(), "fp32")
    cache = folder.with_name(f"{folder.name}.timing")
    cache.parent.mkdir()
    (tmp_path / "mine").write_text("mine")
    cache.symlink_to(tmp_path / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hvpnet_runtime.backends.tensorrt.build.load_library", lambda _: api)
        build_engines(bundle, BuildOptions("tensorrt", precision="fp32", max_batch=1, max_length=16))
    assert (tmp_path / "mine").read_text() == "mine"
    assert cache.is_file()
    assert not cache.is_symlink()


# As a user


def test_build_and_inspect(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", str(bundle.path), "--engine", "tensorrt-rtx", "--max-batch", "2", "--max-seq", "20", "--json"]
    settings = ["--workspace", "64", "--optimisation-level", "1", "--gpus", "8.9,12.0"]
    assert main([*command, *settings]) == 0
    output = capsys.readouterr()
    shown = json.loads(output.out)
    assert_snake_case(shown)
    assert (shown["precision"], shown["profiles"]["text"]) == ("fp16", 4)
    assert shown["attention"] == "4 of 4 attention layers are one kernel each"
    assert "hvpnet: parsing text.onnx" in output.err
    (name,) = built_engines(bundle)
    record = BuildRecord.read(bundle.path / "engines" / name)
    assert record.settings == {"workspace": 64 * 2**20, "optimisation_level": 1}
    assert main(["inspect", str(bundle.path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"engines {name}"))
    assert "fp16, for GPUs of compute capability 8.9 and 12.0, up to 2 texts of 20 pieces, 4 of 4 attention" in line
    assert main(["inspect", str(bundle.path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert_snake_case(shown)
    assert shown["engines"][name]["sources"] == dict(record.sources)
    (bundle.path / "engines" / name / "build.json").write_text("{}")
    assert main(["inspect", str(bundle.path)]) == 0
    assert "has no readable build.json" in capsys.readouterr().out


def test_a_gpu_is_chosen_for_tensorrt_alone(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(bundle.path), "--engine", "tensorrt-rtx", "--device", "1"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("tensorrt-rtx builds for GPUs that need not be here: choose them by gpus, not by device")


def test_tensorrt_is_an_extra(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", None)
        assert main(["build", str(bundle.path), "--engine", "tensorrt"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == ("hvpnet: error: the engine tensorrt needs the package tensorrt: pip install 'hvpnet[tensorrt]'")


# What the fake GPU of the other tests stands for


def test_without_a_gpu_the_error_says_so(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import runtime

    build_engines(bundle, OPTIONS)
    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaErrorInsufficientDriver, 0))
    with pytest.raises(BackendError, match=r"no usable CUDA GPU \(cudaErrorInsufficientDriver\): check nvidia-smi"):
        load_backend(bundle, "tensorrt-rtx")
    assert load_backend(bundle).name == "onnxruntime-cpu"


@pytest.mark.parametrize(
    ("fake", "real"),
    [(fake_gpu.FakeContext, "IExecutionContext"), (fake_gpu.FakeEngine, "ICudaEngine")],
    ids=["context", "engine"],
)
def test_the_fake_library_has_nothing_that_the_real_one_lacks(fake: type, real: str) -> None:
    offered = {name for name in vars(fake) if not name.startswith("_")}
    assert offered <= set(dir(getattr(tensorrt_rtx, real)))
    assert {"num_io_tensors", "device_memory_size_v2"} <= set(dir(tensorrt_rtx.ICudaEngine))


def test_the_real_library_has_what_contexts_need() -> None:
    configured = {"set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy"}
    assert configured <= set(dir(tensorrt_rtx.IRuntimeConfig))
    assert tensorrt_rtx.ExecutionContextAllocationStrategy.USER_MANAGED
    assert tensorrt_rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    assert tensorrt_rtx.nptype(tensorrt_rtx.float16) == np.float16


@pytest.mark.parametrize("queries", ["fixed", "text"])
def test_the_grounder_is_built_with_the_rest(copy_of: Callable[..., Bundle], api: Library, queries: str) -> None:
    """In FP32 beside an FP16 model where it has nothing else; a bundle that is given one later keeps its engines."""
    bundle = copy_of("ner", "full", "markers")
    build_engines(bundle, OPTIONS)
    bundle = Bundle.load(add_grounder(bundle.path, queries, ("red", "blue")))
    folder, record = find_engine(bundle, api, GPU)
    assert "grounder" not in record.profiles
    assert build_engines(bundle, OPTIONS) == folder
    _, record = find_engine(bundle, api, GPU)
    graphs = {"grounder"} if queries == "fixed" else {"grounder", "queries"}
    assert record.profiles.keys() == {"vision", "text"} | graphs
    assert {name for name in record.sources if "fp32" in name} == {f"onnx/fp32/{graph}.onnx" for graph in graphs}
    lengths = [profile.length for profile in record.profiles["grounder"]]
    assert lengths == ([2, 2] if queries == "fixed" else [4, 4, 8, 8, 16, 16])
    assert record.networks["grounder"]["outputs"] == {"boxes": "FLOAT", "scores": "FLOAT"}
