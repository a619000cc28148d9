"""ONNX Runtime's GPU backend with a device in host memory, where the CPU provider runs what is bound to it."""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cpu_provider import CpuProviderBackend, QueuedSession
from fake_gpu import FakeCuda

from hvpnet_runtime import BackendError, Bundle
from hvpnet_runtime.backends import TextInputs, load_backend
from hvpnet_runtime.backends.base import LENGTHS
from hvpnet_runtime.backends.gpu_libraries import load_cuda_libraries, load_tensorrt_10
from hvpnet_runtime.backends.onnxruntime import failure_of
from hvpnet_runtime.backends.onnxruntime_engine import RECORD_ASSIGNMENT, SessionEngine
from hvpnet_runtime.backends.onnxruntime_gpu import OnnxRuntimeGpuBackend
from hvpnet_runtime.backends.onnxruntime_options import Kind, cuda_options, provider_cache, tensorrt_options
from hvpnet_runtime.errors import DeviceMemoryError

Load = Callable[..., CpuProviderBackend]


@pytest.fixture
def load(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.setattr("hvpnet_runtime.backends.onnxruntime_gpu.load_tensorrt_10", lambda: None)

    def load(kind: Kind = "onnxruntime-cuda", **options: Any) -> CpuProviderBackend:
        return CpuProviderBackend(Bundle.load(ner_bundle), kind, **options)

    return load


def batch(backend: Any, texts: int, pictures: int) -> np.ndarray:
    """Emissions of texts of different lengths, each with its own pictures; padding is left at 0."""
    random = np.random.default_rng(7)
    prefixes = backend.encode_pictures(random.integers(0, 256, (pictures, 224, 224, 3), np.uint8))
    lengths = [5 + row for row in range(texts)]
    ids = random.integers(5, 40, (texts, max(lengths)))
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    rows = [[prefixes[(row + place) % pictures] for place in range(4)] for row in range(texts)]
    emissions = backend.encode_text(TextInputs(ids, mask), rows)
    return np.where(mask[:, :, None] == 1, emissions, 0)


@pytest.mark.parametrize("kind", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_padded_batches_answer_as_on_the_cpu(load: Load, ner_bundle: Path, kind: Kind) -> None:
    """Three pictures are padded to four, and three texts of 7 pieces to four of 16; what pads them is not told."""
    expected = batch(load_backend(Bundle.load(ner_bundle), "onnxruntime-cpu"), 3, 3)
    backend = load(kind)
    np.testing.assert_allclose(batch(backend, 3, 3), expected, atol=1e-4)
    shapes = dict(backend.bound)
    assert shapes["images"] == (4, 224, 224, 3)
    assert shapes["input_ids"] == (4, LENGTHS[0])
    assert shapes["prefix"][0] == shapes["attention_mask"][0] == shapes["input_ids"][0]
    backend.close()
    assert backend._cuda.leaks() == {}


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_real_gpu_answers_as_the_cpu(ner_bundle: Path, cuda_graphs: bool) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no CUDAExecutionProvider")
    bundle = Bundle.load(ner_bundle)
    expected = batch(load_backend(bundle, "onnxruntime-cpu"), 3, 3)
    backend = OnnxRuntimeGpuBackend(bundle, "onnxruntime-cuda", cuda_graphs=cuda_graphs)
    for _ in range(2):
        np.testing.assert_allclose(batch(backend, 3, 3), expected, atol=1e-3)
    backend.close()


def test_a_batch_that_does_not_fit_is_halved(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """And what fits is remembered."""
    whole, halved = load(), load()
    expected = batch(whole, 5, 5)
    halved.room = 2
    with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
        np.testing.assert_allclose(batch(halved, 5, 5), expected, atol=1e-4)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("Failed to allocate memory" in line and "run as 2 for the time being" in line for line in said)
    halved.bound.clear()
    caplog.clear()
    batch(halved, 5, 5)
    assert all(shape[0] <= 2 for _, shape in halved.bound)
    assert not caplog.records
    full = load()
    full.room = 0
    with pytest.raises(DeviceMemoryError, match="asked to run, failed: BFCArena: Failed to allocate"):
        batch(full, 1, 1)


def test_after_a_shape_was_seen_a_request_is_one_launch(load: Load) -> None:
    backend = load()
    expected = batch(backend, 2, 2)
    runs, launches = backend.runs, backend._cuda.launches
    np.testing.assert_array_equal(batch(backend, 2, 2), expected)
    assert backend.runs == runs
    assert backend._cuda.launches == launches + 2  # vision and text
    plain = load(cuda_graphs=False)
    np.testing.assert_allclose(batch(plain, 2, 2), expected, atol=1e-5)
    assert plain._cuda.launches == 0


def test_a_capture_that_fails_is_tried_again_and_then_left(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    expected = batch(load(), 1, 1)
    for breaks, warnings in ((1, 0), (2, 1)):
        caplog.clear()
        backend = load()
        backend.breaks = breaks
        with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
            for _ in range(2):
                np.testing.assert_allclose(batch(backend, 1, 1), expected, atol=1e-5)
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == warnings
        assert all("CUDA failure 907" in line and "kernels are queued one by one" in line for line in said)
        backend.close()
        assert backend._cuda.leaks() == {}


def test_a_context_that_no_longer_runs_after_a_capture_is_an_error(load: Load) -> None:
    """Three libraries report a broken capture once each; what goes on failing is not for them to settle."""
    backend = load()
    backend.breaks, backend.libraries = 1, 9
    with pytest.raises(BackendError, match="901"):
        batch(backend, 1, 1)
    backend.stale = 0
    np.testing.assert_allclose(batch(backend, 1, 1), batch(load(), 1, 1), atol=1e-5)


def test_a_graph_with_nodes_on_the_cpu_is_not_captured(
    load: Load, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes that compute shapes are there anyway, and do no harm."""
    expected = batch(load(), 1, 1)

    def assigned(*operators: str) -> list[Any]:
        parts = []
        for name in operators:
            node = SimpleNamespace(op_type=name)
            parts.append(SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda node=node: [node]))
        gelu = SimpleNamespace(op_type="Gelu")
        return [*parts, SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [gelu])]

    for operators, captured in ((("Shape", "Concat"), True), (("Shape", "TopK"), False)):
        found = assigned(*operators)
        monkeypatch.setattr(QueuedSession, "get_provider_graph_assignment_info", lambda _, found=found: found, False)
        caplog.clear()
        backend = load()
        with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
            np.testing.assert_allclose(batch(backend, 1, 1), expected, atol=1e-5)
        assert (backend._cuda.launches > 0) == captured
        assert any("cannot capture this engine" in line.getMessage() for line in caplog.records) != captured
        assert any("runs ['TopK'] of text.onnx on the CPU" in each.message for each in caplog.records) != captured
        backend.close()


def test_sessions_tell_where_their_nodes_run(ner_bundle: Path) -> None:
    """ONNX Runtime itself does, as it is asked to; here it has nothing but the CPU."""
    bundle, options = Bundle.load(ner_bundle), onnxruntime.SessionOptions()
    options.add_session_config_entry(*RECORD_ASSIGNMENT)
    session = onnxruntime.InferenceSession(bundle.onnx("text", "fp32"), options, providers=["CPUExecutionProvider"])
    assert {"MatMul", "Softmax", "LayerNormalization"} <= set(
        SessionEngine(session, bundle.specs("fp32")["text"]).on_cpu()
    )


def test_too_long_a_text_is_told_what_makes_it_fit(load: Load) -> None:
    with pytest.raises(BackendError, match=r"texts of up to 64 pieces here, not of 65: export .*--max-length"):
        load().encode_text(TextInputs(*[np.ones((1, 65), np.int64)] * 2), [[]])


def test_every_bucket_is_warmed_up(load: Load, ner_bundle: Path) -> None:
    backend = load()
    backend.warm_up([])
    most = Bundle.load(ner_bundle).manifest.limits.max_length
    assert {shape[0] for name, shape in backend.bound if name == "images"} == {1, 2, 4, 8, 16}
    lengths = {shape for name, shape in backend.bound if name == "input_ids"}
    expected = (*(each for each in LENGTHS if each < most), most)
    assert lengths == {(rows, length) for rows in (1, 2, 4, 8, 16, 32) for length in expected}
    runs = backend.runs
    batch(backend, 3, 4)
    assert backend.runs == runs


def test_a_constructor_that_fails_frees_its_stream(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BackendError("no")

    monkeypatch.setattr(CpuProviderBackend, "providers", refuse)
    cuda = FakeCuda()
    with pytest.raises(BackendError, match="no"):
        load(cuda=cuda)
    assert cuda.leaks() == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_in_a_forked_process_every_method_refuses_and_close_frees_nothing(load: Load) -> None:
    backend = load()
    (prefix,) = backend.encode_pictures(np.zeros((1, 224, 224, 3), np.uint8))
    text = TextInputs(np.ones((1, 4), np.int64), np.ones((1, 4), np.int64))
    calls: list[Callable[[], object]] = [
        lambda: backend.encode_pictures(np.zeros((1, 224, 224, 3), np.uint8)),
        lambda: backend.place_prefix(np.zeros((2, 2, 8), np.float32)),
        lambda: backend.encode_text(text, [[prefix] * 4]),
        lambda: backend.warm_up([]),
        backend.load_grounder,
    ]
    monkeypatched = backend._origin._process
    backend._origin._process = -1  # as in a process that was forked from this one
    for call in calls:
        with pytest.raises(BackendError, match="this one was forked from it"):
            call()
    backend.close()
    backend._origin._process = monkeypatched
    assert batch(backend, 1, 1).any()


def test_the_cuda_provider_computes_as_the_precision_says() -> None:
    assert cuda_options("fp32", 1, 77) == {
        "CUDAExecutionProvider": {
            "device_id": "1",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "prefer_nhwc": "0",
            "user_compute_stream": "77",
        }
    }
    assert cuda_options("fp16", 0)["CUDAExecutionProvider"]["use_tf32"] == "1"


def test_the_tensorrt_provider_gets_a_profile_of_every_input_and_a_folder(ner_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(ner_bundle)
    options = tensorrt_options(bundle.specs("fp32")["text"], "fp32", 0, 5, tmp_path, 100)["TensorrtExecutionProvider"]
    rest = "x".join(map(str, (bundle.sizes.pictures, *bundle.sizes.prefix_shape)))
    for which, rows, length in (("min", 1, LENGTHS[0]), ("opt", 8, 64), ("max", 32, 100)):
        assert options[f"trt_profile_{which}_shapes"] == (
            f"input_ids:{rows}x{length},attention_mask:{rows}x{length},prefix:{rows}x{rest}"
        )
    assert "trt_fp16_enable" not in options
    vision = tensorrt_options(bundle.specs("fp32")["vision"], "fp16", 0, 5, tmp_path, 100)["TensorrtExecutionProvider"]
    assert vision["trt_profile_max_shapes"] == "images:16x224x224x3"
    assert vision["trt_fp16_enable"] == "1"


def test_engines_of_other_graphs_are_in_another_folder(ner_bundle: Path, re_bundle: Path, tmp_path: Path) -> None:
    folders = []
    for source in (ner_bundle, re_bundle):
        bundle = replace(Bundle.load(source), path=tmp_path)
        folders.append(provider_cache(bundle, "1.31.1", "fp32"))
    assert all(folder.is_dir() for folder in folders)
    assert folders[0] != folders[1]
    (tmp_path / "file").touch()
    bundle = replace(bundle, path=tmp_path / "file")
    with pytest.raises(BackendError, match=r"keeps the engines it builds in .* which cannot be made"):
        provider_cache(bundle, "1.31.1", "fp32")


def test_the_libraries_are_looked_for_without_a_word_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Output of its own; what another thread prints meanwhile gets there."""

    def preload(cuda: bool = True) -> None:
        print("Failed to load libcublas.so.13: no such file" if cuda else "")
        other = Thread(target=lambda: sys.stdout.write("an answer\n"))
        other.start()
        other.join()
        print("Please follow https://...")

    module = type("Module", (), {"preload_dlls": staticmethod(preload)})
    assert load_cuda_libraries(module) == ("Failed to load libcublas.so.13: no such file",)
    assert capsys.readouterr().out == "an answer\n"


def test_without_tensorrt_10_the_error_says_so() -> None:
    load_tensorrt_10.cache_clear()
    with pytest.raises(BackendError, match=r"needs TensorRT 10, and libnvinfer\.so\.10 does not load .*gpu-tensorrt"):
        load_tensorrt_10()


def test_failures_for_want_of_memory_are_told_apart() -> None:
    for message in ("CUDA failure 2: out of memory ; GPU=0", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert isinstance(failure_of("x", RuntimeError(message)), DeviceMemoryError)
    assert type(failure_of("x", RuntimeError("invalid shape"))) is BackendError
    assert str(failure_of("x", RuntimeError())) == "x failed: it gives no reason"
