"""Which backend loads, and what is said when it does not."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from fake_gpu import FakeCuda

import hvpnet_runtime.backends
from hvpnet_runtime import BackendError, Bundle, BundleError, InputError, Pipeline
from hvpnet_runtime.backends import (
    AUTO,
    BACKENDS,
    TextInputs,
    WarmUpShape,
    available_backends,
    load_backend,
    nvidia,
)
from hvpnet_runtime.backends.base import LENGTHS
from hvpnet_runtime.backends.cuda import find_device
from hvpnet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.errors import MissingExtraError


def test_auto_says_what_it_passed_over_and_what_loaded(ner_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hvpnet_runtime"):
        backend = load_backend(Bundle.load(ner_bundle))
    if find_device() is None:
        assert backend.name == "onnxruntime-cpu"
        said = [record.getMessage() for record in caplog.records]
        assert [line.partition(" passed over: ")[0] for line in said[:-1]] == [f"backend {name}" for name in AUTO[:-1]]
        assert all(" passed over: " in line for line in said[:-1])
    assert f"backend {backend.name} loaded" in caplog.text


def test_auto_warns_where_a_gpu_is_left_idle(
    ner_bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason for each backend; where there is no GPU, nothing is said."""

    def refuse(*_: object) -> None:
        raise MissingExtraError("cuda-bindings", "gpu", "running on a GPU")

    for name in AUTO[:-1]:
        monkeypatch.setitem(BACKENDS, name, refuse)
    for here, expected in ((False, []), (True, [*AUTO[:-1], "an NVIDIA GPU is here"])):
        monkeypatch.setattr(hvpnet_runtime.backends, "sees_nvidia_gpu", lambda here=here: here)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
            assert load_backend(Bundle.load(ner_bundle)).name == "onnxruntime-cpu"
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == len(expected)
        for line, start in zip(said, expected, strict=True):
            assert line.removeprefix("backend ").startswith(start)
        assert all("pip install 'hvpnet[gpu]'" in line for line in said[:-1])


def test_a_gpu_is_seen_by_its_driver_unless_it_is_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvidia, "_LIBRARY", "libnone.so.1")
    monkeypatch.setattr(nvidia, "_DRIVER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not nvidia.sees_nvidia_gpu()
    (tmp_path / "nvidia-smi").touch(0o755)
    assert nvidia.sees_nvidia_gpu()
    (tmp_path / "nvidia-smi").unlink()
    monkeypatch.setattr(nvidia, "_DRIVER", tmp_path)
    for hidden, seen in (("", False), ("-1", False), ("0", True), ("GPU-5f", True)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert nvidia.sees_nvidia_gpu() == seen


def test_the_chosen_gpu_reaches_the_backend(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And `auto` then loads none of the CPU."""
    asked: list[Any] = []

    def note(_: Bundle, threads: int | None, precision: str | None, device: int | None) -> None:
        asked.append(device)
        raise BackendError(f"there is no GPU {device}")

    for name in AUTO[:-1]:
        monkeypatch.setitem(BACKENDS, name, note)
    with pytest.raises(BackendError, match="no backend runs on GPU 3: there is no GPU 3; there is no GPU 3"):
        Pipeline.load(ner_bundle, device=3)
    assert asked == [3] * (len(AUTO) - 1)
    for name in ("onnxruntime-cpu", "openvino"):
        with pytest.raises(InputError, match=f"GPU 0 is chosen for the backend {name}, which runs on the CPU"):
            Pipeline.load(ner_bundle, name, device=0)
    for wrong in (-1, True, 1.5):
        with pytest.raises(InputError, match="device must be a whole number, at least 0"):
            Pipeline.load(ner_bundle, device=wrong)  # type: ignore[arg-type]


def test_warming_up_runs_what_is_asked_for(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Any] = []
    real = OnnxRuntimeBackend._run

    def run(self: Any, graph: str, feeds: Any) -> Any:
        ran.append((graph, next(iter(feeds.values())).shape))
        return real(self, graph, feeds)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRuntimeBackend, "_run", run)
    with Pipeline.load(ner_bundle, "onnxruntime-cpu") as pipeline:
        most = pipeline.bundle.manifest.limits.max_length
        pipeline.warm_up()
        assert ran == [("vision", (1, 224, 224, 3)), ("text", (1, min(LENGTHS[0], most)))]
        ran.clear()
        pipeline.warm_up([WarmUpShape(3, 7, 2), WarmUpShape(0, 0, 1)])
        assert ran == [("vision", (2, 224, 224, 3)), ("text", (3, 7)), ("vision", (1, 224, 224, 3))]
        with pytest.raises(InputError, match=f"is longer than the longest text, which has {most} pieces"):
            pipeline.warm_up([WarmUpShape(1, most + 1, 1)])
    with pytest.raises(InputError, match="there is no batch such as"):
        WarmUpShape(1, 0, 1)


def test_available_backends_say_what_runs_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = available_backends()
    assert tuple(found) == tuple(BACKENDS)
    assert found["onnxruntime-cpu"] is None
    assert found["openvino"] is None
    if find_device() is None:
        assert found["onnxruntime-cuda"] == (
            "this build of onnxruntime has no CUDAExecutionProvider, only "
            + ", ".join(onnxruntime.get_available_providers())
        )
        assert "no usable CUDA GPU" in str(found["tensorrt-rtx"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = available_backends()
    assert "pip install 'hvpnet[openvino]'" in str(found["openvino"])
    assert "pip install 'hvpnet[cpu]'" in str(found["onnxruntime-cpu"])
    assert "pip install 'hvpnet[gpu]'" in str(found["onnxruntime-cuda"])


@pytest.mark.parametrize("name", [pytest.param("onnxruntime-cpu", marks=pytest.mark.heavy), "openvino"])
def test_a_placed_prefix_is_read_as_a_computed_one(bundle_of: Any, name: str) -> None:
    """In FP16 graphs prefixes are float16."""
    bundle = Bundle.load(bundle_of("ner", precisions=("fp32", "fp16") if name == "onnxruntime-cpu" else ("fp32",)))
    text = TextInputs(np.array([[2, 7, 9, 3]]), np.ones((1, 4), np.int64))
    for precision in bundle.manifest.precision:
        backend = load_backend(bundle, name, precision=precision)
        (computed,) = backend.encode_pictures(np.full((1, 224, 224, 3), 90, np.uint8))
        placed = backend.place_prefix(np.asarray(computed, np.float32))
        outputs = [backend.encode_text(text, [[prefix] * 4]) for prefix in (computed, placed)]
        np.testing.assert_array_equal(*outputs)


def test_an_unknown_backend_names_the_known(ner_bundle: Path) -> None:
    with pytest.raises(BackendError, match="there is no backend 'tpu': choose auto, tensorrt, tensorrt-rtx,"):
        Pipeline.load(ner_bundle, "tpu")
    with pytest.raises(BackendError, match="there is no backend 'xx") as caught:
        Pipeline.load(ner_bundle, "x" * 3000)
    assert len(str(caught.value)) < 300
    with pytest.raises(BundleError, match="graphs do not run on this backend: choose") as caught:
        Pipeline.load(ner_bundle, "onnxruntime-cpu", precision="x" * 3000)
    assert len(str(caught.value)) < 300


def test_a_provider_that_silently_falls_back_is_an_error(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists CUDA in its GPU build and runs on the CPU where the CUDA libraries do not load."""
    real, cuda = onnxruntime.InferenceSession, FakeCuda()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, **_: real(path, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(BackendError, match="CUDAExecutionProvider did not load"):
        OnnxRuntimeGpuBackend(Bundle.load(ner_bundle), "onnxruntime-cuda", cuda=cuda)
    assert cuda.leaks() == {}


def test_without_onnxruntime_the_extra_is_named(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs the package onnxruntime: pip install 'hvpnet\[cpu\]'"):
        load_backend(Bundle.load(ner_bundle), "onnxruntime-cpu")
    with pytest.raises(BackendError, match="no backend runs here"):
        load_backend(Bundle.load(ner_bundle))


@pytest.mark.heavy
def test_the_precision_that_loads(bundle_of: Any, ner_bundle: Path) -> None:
    both = bundle_of("ner", precisions=("fp32", "int8"))
    for wanted, found in ((None, "fp32"), ("fp32", "fp32"), ("int8", "int8")):
        with Pipeline.load(both, "onnxruntime-cpu", precision=wanted) as pipeline:
            assert pipeline.backend.precision == found
    with pytest.raises(BundleError, match="has no int8 graphs, only fp32"):
        Pipeline.load(ner_bundle, "onnxruntime-cpu", precision="int8")
    with pytest.raises(BundleError, match=r"'bf16' graphs do not run .*: choose fp32 or int8 or fp16 or int8_fp16"):
        Pipeline.load(both, "onnxruntime-cpu", precision="bf16")
    with pytest.raises(BundleError, match="'int8' graphs do not run on this backend: choose fp16 or fp32"):
        OnnxRuntimeGpuBackend(Bundle.load(both), "onnxruntime-cuda", "int8", cuda=FakeCuda())


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("int8", 0.1), ("bf16", 0.1)])
@pytest.mark.heavy
def test_openvino_answers_as_onnxruntime(bundle_of: Any, precision: str, bound: float) -> None:
    bundle = Bundle.load(bundle_of("ner", precisions=("fp32", "int8")))
    reference = load_backend(bundle, "onnxruntime-cpu", precision="fp32" if precision == "bf16" else precision)
    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="this processor does not compute in bfloat16: choose fp32 or int8"):
            load_backend(bundle, "openvino", precision=precision)
        return
    backend = load_backend(bundle, "openvino", precision=precision)
    assert (backend.name, backend.precision) == ("openvino", precision)
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    ids, mask = np.array([[2, 7, 9, 3], [2, 8, 3, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    outputs = []
    for each in (reference, backend):
        first, second, third = each.encode_pictures(images)
        rows = [[first, second, third, third], [third, first, first, second]]
        outputs.append(each.encode_text(TextInputs(ids, mask), rows)[mask == 1])
    assert 0 < np.abs(outputs[0] - outputs[1]).max() < bound


def test_openvino_keeps_what_it_answered(ner_bundle: Path) -> None:
    """A backend whose outputs live in memory that the next run overwrites."""
    backend = load_backend(Bundle.load(ner_bundle), "openvino", threads=1)
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    (first,) = backend.encode_pictures(images[:1])
    before = np.array(first)
    (second,) = backend.encode_pictures(images[1:])
    np.testing.assert_array_equal(first, before)
    assert np.abs(np.asarray(second) - before).max() > 1e-3
    backend.close()
    with pytest.raises(BackendError, match="the backend openvino is closed"):
        backend.encode_text(TextInputs(np.ones((1, 3), np.int64), np.ones((1, 3), np.int64)), [[first] * 4])


def test_openvino_cannot_load_a_damaged_graph(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "graph", lambda *_: b"no graph")
    with pytest.raises(BundleError, match=r"OpenVINO cannot load .*vision.onnx: ."):
        load_backend(Bundle.load(ner_bundle), "openvino")


def test_a_graph_that_does_not_answer_in_the_shape_it_promises(
    ner_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load_backend(Bundle.load(ner_bundle), "onnxruntime-cpu")
    monkeypatch.setattr(backend, "_run", lambda graph, feeds: np.zeros((1, 4, 2, 512), np.float32))
    with pytest.raises(BackendError, match=r"vision.onnx answers with the shape \[1, .*\], not \[2, 4, 2, 512\]"):
        backend.encode_pictures(np.zeros((2, 224, 224, 3), np.uint8))


def test_without_openvino_the_extra_is_named(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"needs the package openvino: pip install 'hvpnet\[openvino\]'"):
        load_backend(Bundle.load(ner_bundle), "openvino")


def test_threads_change_nothing(ner_bundle: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    ids = np.array([[2, 7, 9, 3]])
    outputs = []
    for threads in (1, 2):
        backend = load_backend(bundle, "onnxruntime-cpu", threads)
        prefixes = backend.encode_pictures(images)
        outputs.append(backend.encode_text(TextInputs(ids, np.ones_like(ids)), [[*prefixes, *prefixes]]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


@pytest.mark.heavy
def test_text_only_bundles_read_no_pictures(bundle_of: object) -> None:
    backend = load_backend(Bundle.load(bundle_of("ner", "text_only", "markers")))
    with pytest.raises(BackendError, match="reads no pictures"):
        backend.encode_pictures(np.zeros((1, 224, 224, 3), np.uint8))
