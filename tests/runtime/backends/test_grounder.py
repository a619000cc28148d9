"""A grounder answers the same on every backend, and only in the shapes that it promises."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cpu_provider import CpuProviderBackend
from fake_gpu import FakeCuda, fake_api, write_fake_engines
from onnx import helper
from rewrite import rewrite
from tiny_grounder import COLOURS, SIDE, add_grounder, vectors

from hvpnet_runtime import BackendError, Bundle, BundleError, Pipeline
from hvpnet_runtime.backends import Grounder, load_backend
from hvpnet_runtime.backends import onnxruntime as module
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.errors import StaleEngineError

pytestmark = pytest.mark.heavy


@pytest.fixture
def bundle(ner_bundle: Path, tmp_path: Path) -> Path:
    return add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), "text")


def on_fake_gpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> Grounder:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return CpuProviderBackend(Bundle.load(path), "onnxruntime-cuda").load_grounder()


def on_fake_tensorrt(path: Path, *, engines: bool) -> Grounder:
    cuda, bundle = FakeCuda(), Bundle.load(path)
    api = fake_api(cuda)
    write_fake_engines(bundle, api, grounder=engines)
    return TensorRTBackend(bundle, "tensorrt", cuda=cuda, api=api).load_grounder()


PLACES: dict[str, Callable[[Path, pytest.MonkeyPatch], Grounder]] = {
    "onnxruntime-cpu": lambda path, _: load_backend(Bundle.load(path), "onnxruntime-cpu").load_grounder(),
    "openvino": lambda path, _: load_backend(Bundle.load(path), "openvino").load_grounder(),
    "onnxruntime-cuda": on_fake_gpu,
    "tensorrt": lambda path, _: on_fake_tensorrt(path, engines=True),
    "tensorrt without its engines": lambda path, _: on_fake_tensorrt(path, engines=False),
}


def scene(**boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A white picture with a rectangle of each colour."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for colour, (x0, y0, x1, y1) in boxes.items():
        pixels[y0:y1, x0:x1] = COLOURS[colour]
    return pixels


@pytest.mark.parametrize("place", PLACES)
def test_boxes_and_scores_of_every_picture_and_query(
    bundle: Path, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
        grounder = PLACES[place](bundle, monkeypatch)
    assert grounder.precision == "fp32"
    warned = "objects are found by onnxruntime-cpu on the CPU: " in caplog.text
    assert warned == (place == "tensorrt without its engines")
    grounder.warm_up()
    images = np.stack([scene(red=(2, 4, 10, 20), blue=(16, 0, 32, 8)), scene(green=(0, 0, 5, 5), red=(31, 31, 32, 32))])
    queries = np.stack([vectors(("red", "green")), vectors(("green", "red"))])
    boxes, scores = grounder.find_objects(images, queries)
    assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)
    expected = [[(2, 4, 10, 20), (SIDE, SIDE, 0, 0)], [(0, 0, 5, 5), (31, 31, 32, 32)]]
    np.testing.assert_array_equal(boxes * SIDE, np.array(expected, np.float32))
    np.testing.assert_allclose(scores * SIDE**2, [[8 * 16, 0], [25, 1]], rtol=1e-6)
    ids, mask = np.array([[2, 4, 3, 0], [2, 6, 1, 3]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(grounder.encode_queries(ids, mask), vectors(("red", "blue")))
    grounder.close()
    grounder.close()
    with pytest.raises(BackendError, match="is closed"):
        grounder.find_objects(images, queries)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Graphs that ONNX Runtime was asked to run, and rows; a GPU has no memory for more than two."""
    asked, run = list[tuple[str, int]](), module.run_session

    def run_or_fail(name: str, session: Any, spec: Any, feeds: Any) -> Any:
        rows = len(next(iter(feeds.values())))
        asked.append((spec.name, rows))
        if name == "onnxruntime-cuda" and rows > 2:
            raise module.failure_of(name, RuntimeError("Failed to allocate memory for requested buffer"))
        return run(name, session, spec, feeds)

    monkeypatch.setattr(module, "run_session", run_or_fail)
    return asked


def test_a_gpu_without_memory_for_a_batch_runs_halves(
    bundle: Path, runs: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    grounder = on_fake_gpu(bundle, monkeypatch)
    images = np.stack([scene(red=(0, 0, 4 + each, 8)) for each in range(7)])
    queries = np.repeat(vectors(("red",))[None], 7, 0)
    with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
        boxes, _ = grounder.find_objects(images, queries)
        again, _ = grounder.find_objects(images, queries)
    np.testing.assert_array_equal(boxes[:, 0] * SIDE, [(0, 0, 4 + each, 8) for each in range(7)])
    np.testing.assert_array_equal(again, boxes)
    assert [rows for _, rows in runs] == [8, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("the grounder of onnxruntime-cuda: ")
    assert "; batches of 7 run as 2 for the time being" in warning


def test_what_is_slow_the_first_time_is_run_ahead(
    bundle: Path, runs: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches that a GPU pads to, those that its memory does not suffice for in halves; one picture on a CPU."""
    with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
        runs.clear()
        pipeline.warm_up()
        assert [run for run in runs if run[0] in ("grounder", "queries")] == [("grounder", 1), ("queries", 1)]
    grounder = on_fake_gpu(bundle, monkeypatch)
    runs.clear()
    grounder.warm_up()
    assert runs == [*(("grounder", rows) for rows in (8, 4, 2, 2, 2, 2, 2, 2, 2, 1)), ("queries", 1)]


def test_engines_built_for_fewer_words_are_stale(ner_bundle: Path, tmp_path: Path) -> None:
    """The graph of the grounder is the same in every byte."""
    path = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), words=("red", "green"))
    cuda = FakeCuda()
    api = fake_api(cuda)
    write_fake_engines(Bundle.load(path), api, grounder=True)
    TensorRTBackend(Bundle.load(path), "tensorrt", cuda=cuda, api=api).load_grounder().close()
    add_grounder(path, words=("red", "green", "blue"))
    with pytest.raises(
        StaleEngineError, match=r"was built for 2 words of the grounder, which is asked 3 now: build again with hvpnet"
    ):
        TensorRTBackend(Bundle.load(path), "tensorrt", cuda=cuda, api=api)


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino"])
def test_what_fails_is_a_backend_error(bundle: Path, name: str) -> None:
    grounder = load_backend(Bundle.load(bundle), name).load_grounder()
    with pytest.raises(BackendError, match=f"{name} failed"):
        grounder.find_objects(scene()[None], np.zeros((1, 2, 7), np.float32))


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino"])
def test_a_bundle_without_one(ner_bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match="has no grounder, which finds objects"):
        load_backend(Bundle.load(ner_bundle), name).load_grounder()


def widened(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    for node in model.graph.node:
        node.output[:] = ["half" if name == "boxes" else name for name in node.output]
    model.graph.node.append(helper.make_node("Concat", ["half", "half"], ["boxes"], axis=1))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino"])
@pytest.mark.parametrize("content", [b"", b"no protobuf", "queries"])
def test_a_damaged_graph_is_named(bundle: Path, name: str, content: bytes | str) -> None:
    if isinstance(content, str):  # another graph in its place
        content = (bundle / "onnx/fp32/queries.onnx").read_bytes()
    rewrite(bundle, "onnx/fp32/grounder.onnx", content)
    backend = load_backend(Bundle.load(bundle), name)  # which does without it
    with pytest.raises(BundleError, match=r"onnx/fp32/grounder\.onnx") as raised:
        backend.load_grounder()
    assert "\n" not in str(raised.value)


def test_a_shape_that_a_graph_promises_and_does_not_keep(bundle: Path) -> None:
    rewrite(bundle, "onnx/fp32/grounder.onnx", widened((bundle / "onnx/fp32/grounder.onnx").read_bytes()))
    grounder = load_backend(Bundle.load(bundle), "onnxruntime-cpu").load_grounder()
    with pytest.raises(
        BackendError, match=r"grounder\.onnx answers with boxes of the shape \[1, 2, 4\], not \[1, 1, 4\]"
    ):
        grounder.find_objects(scene()[None], np.zeros((1, 1, 3), np.float32))


def test_an_int8_bundle_finds_objects_with_fp32(bundle_of: Callable[..., Path], tmp_path: Path) -> None:
    path = add_grounder(Path(shutil.copytree(bundle_of("ner", precisions=("fp32", "int8")), tmp_path / "bundle")))
    backend = load_backend(Bundle.load(path), "onnxruntime-cpu", precision="int8")
    assert (backend.precision, backend.load_grounder().precision) == ("int8", "fp32")
