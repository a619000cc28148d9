"""Which backend loads, and what is said when it does not."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from fake_gpu import FakeCuda

from hvpnet_runtime import BackendError, Bundle, BundleError, Pipeline
from hvpnet_runtime.backends import AUTO, BACKENDS, TextInputs, available_backends, load_backend
from hvpnet_runtime.backends.cuda import find_device
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
    with pytest.raises(BundleError, match="'bf16' graphs do not run on this backend: choose fp32 or int8 or fp16"):
        Pipeline.load(both, "onnxruntime-cpu", precision="bf16")
    with pytest.raises(BundleError, match="'int8' graphs do not run on this backend: choose fp16 or fp32"):
        OnnxRuntimeGpuBackend(Bundle.load(both), "onnxruntime-cuda", "int8", cuda=FakeCuda())


def test_an_engine_of_another_precision_is_refused(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    engine = SimpleNamespace(name="tensorrt", precision="fp16", close=lambda: closed.append(True))
    monkeypatch.setitem(BACKENDS, "tensorrt", lambda bundle, threads, precision: engine)
    assert load_backend(Bundle.load(ner_bundle), "tensorrt", precision="fp16") is engine
    with pytest.raises(BackendError, match="the engines of tensorrt are fp16: build fp32 ones"):
        load_backend(Bundle.load(ner_bundle), "tensorrt", precision="fp32")
    assert closed == [True]


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
