"""Which engine loads, and what is said when it does not."""

import logging
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fake_gpu import FakeCuda

from hvpnet_runtime import BackendError, Bundle, Pipeline
from hvpnet_runtime.backends import AUTO, TextInputs, load_backend
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.cuda import find_device
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


def test_an_unknown_backend_names_the_known(ner_bundle: Path) -> None:
    with pytest.raises(BackendError, match="there is no backend 'tpu': choose auto, tensorrt, tensorrt-rtx,"):
        Pipeline.load(ner_bundle, "tpu")


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


def test_threads_change_nothing(ner_bundle: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    images = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    ids = np.array([[2, 7, 9, 3]])
    outputs = []
    for threads in (1, 2):
        backend = load_backend(bundle, "onnxruntime-cpu", threads)
        prefixes = backend.encode_pictures(images)
        outputs.append(backend.encode_text(TextInputs(ids, np.ones_like(ids)), [[*prefixes, *prefixes]]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_text_only_bundles_read_no_pictures(bundle_of: object) -> None:
    backend = load_backend(Bundle.load(bundle_of("ner", "text_only", "markers")))
    with pytest.raises(BackendError, match="reads no pictures"):
        backend.encode_pictures(np.zeros((1, 3, 224, 224), np.float32))
