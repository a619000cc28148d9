"""The TensorRT backend on a device that refuses, breaks captures or is too small; fake GPU, real results."""

import gc
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any

import numpy as np
import pytest
from fake_cuda import FAKE_GPU, FakeCuda, FakeRuntime, Status
from fake_gpu import FakeLibrary, fake_api, write_fake_engines

from hvpnet_runtime import BackendError, Bundle
from hvpnet_runtime.backends import TextInputs, load_backend
from hvpnet_runtime.backends.base import WarmUpShape
from hvpnet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from hvpnet_runtime.backends.tensorrt.backend import TensorRTBackend
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library
from hvpnet_runtime.errors import DeviceMemoryError, StaleEngineError

pytestmark = pytest.mark.heavy

MIB = 2**20


@dataclass
class Gpu:
    """A fake GPU, its library, and a bundle with engines for it."""

    cuda: FakeCuda
    api: Library
    bundle: Bundle

    @property
    def trt(self) -> FakeLibrary:
        return self.api.trt

    def load(self, **options: Any) -> TensorRTBackend:
        return TensorRTBackend(self.bundle, self.api.engine, cuda=self.cuda, api=self.api, **options)

    def assert_free(self) -> None:
        assert (self.cuda.leaks(), self.trt.living()) == ({}, {})


def make_gpu(bundle: Bundle, engine: EngineName = "tensorrt", cuda: FakeCuda | None = None) -> Gpu:
    cuda = cuda or FakeCuda()
    return Gpu(cuda, fake_api(cuda, engine), bundle)


@pytest.fixture
def bundle(ner_bundle: Path, tmp_path: Path) -> Bundle:
    return Bundle.load(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")))


@pytest.fixture
def gpu(bundle: Bundle) -> Gpu:
    made = make_gpu(bundle)
    write_fake_engines(bundle, made.api)
    return made


@pytest.fixture
def rtx(bundle: Bundle) -> Gpu:
    made = make_gpu(bundle, "tensorrt-rtx")
    write_fake_engines(bundle, made.api)
    return made


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), np.uint8)


def texts(rows: int, length: int) -> TextInputs:
    ids = np.random.default_rng(rows + 10 * length).integers(1, 30, (rows, length))
    return TextInputs(ids, np.ones((rows, length), np.int64))


def answer(backend: Any, rows: int, length: int) -> np.ndarray:
    prefixes = backend.encode_pictures(images(4))
    found: np.ndarray = backend.encode_text(texts(rows, length), [prefixes] * rows)
    return found


def assert_right(found: np.ndarray, bundle: Bundle, rows: int, length: int) -> None:
    np.testing.assert_allclose(found, answer(OnnxRuntimeBackend(bundle), rows, length), rtol=2e-4, atol=2e-4)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Nothing is left


def test_close_frees_engines_contexts_and_the_runtime(gpu: Gpu) -> None:
    gc.disable()  # no collection is needed for it
    try:
        backend = gpu.load()
        answer(backend, 2, 9)
        assert gpu.trt.living() == {"runtimes": 1, "engines": 2, "contexts": 2}
        backend.close()
        gpu.assert_free()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ("runtime", r"^tensorrt cannot run here: pybind11::init\(\): factory function returned nullptr$"),
        ("stream", "^cudaStreamCreateWithFlags failed: cudaErrorIllegalState$"),
    ],
)
def test_a_backend_that_cannot_be_made_leaves_nothing(gpu: Gpu, null: str, message: str) -> None:
    gpu.trt.null.add(null)
    if null == "stream":
        gpu.cuda.failing["cudaStreamCreateWithFlags"] = (1, Status.cudaErrorIllegalState)
    with pytest.raises(BackendError, match=message):
        gpu.load()
    gpu.assert_free()


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ("context", "^tensorrt cannot create an execution context: not today$"),
        ("profile", "^tensorrt cannot select its profile: the profile cannot be selected$"),
        ("cudaMalloc", "^cudaMalloc failed: cudaErrorIllegalState$"),
        ("cudaMallocHost", "^cudaMallocHost failed: cudaErrorIllegalState$"),
    ],
)
def test_an_executor_that_cannot_be_made_leaves_nothing(gpu: Gpu, null: str, message: str) -> None:
    backend = gpu.load()
    before = gpu.cuda.leaks()
    gpu.trt.null.add(null)
    gpu.trt.reason = "not today"
    if null.startswith("cuda"):
        gpu.cuda.failing[null] = (1, Status.cudaErrorIllegalState)
    with pytest.raises(BackendError, match=message):
        backend.encode_pictures(images(1))
    assert gpu.cuda.leaks() == before
    gc.collect()  # the error's traceback
    assert "contexts" not in gpu.trt.living()
    gpu.trt.null.clear()
    assert_right(answer(backend, 1, 5), gpu.bundle, 1, 5)
    backend.close()
    gpu.assert_free()


def test_auto_passes_over_a_library_that_makes_no_runtime(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "hvpnet_runtime.backends.tensorrt.backend"
    monkeypatch.setattr(f"{module}.Cuda", lambda *_, **__: gpu.cuda)
    monkeypatch.setattr(f"{module}.load_library", lambda engine: replace(gpu.api, engine=engine))
    gpu.trt.null.add("runtime")
    assert load_backend(gpu.bundle).name == "onnxruntime-cpu"


# Captures


@pytest.mark.parametrize("call", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_capture_that_fails_once_is_tried_again(gpu: Gpu, call: str, caplog: pytest.LogCaptureFixture) -> None:
    gpu.cuda.failing[call] = (1, Status.cudaErrorStreamCaptureInvalidated)
    backend = gpu.load()
    assert_right(answer(backend, 1, 9), gpu.bundle, 1, 9)
    assert gpu.cuda.launches == 2
    assert warnings(caplog) == []
    backend.close()
    gpu.assert_free()


@pytest.mark.parametrize("call", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_where_captures_fail_kernels_are_queued_one_by_one(
    gpu: Gpu, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.cuda.failing[call] = (2, Status.cudaErrorStreamCaptureInvalidated)  # those of the pictures
    backend = gpu.load()
    for _ in range(3):
        assert_right(answer(backend, 1, 9), gpu.bundle, 1, 9)
    assert gpu.trt.contexts == 2
    assert gpu.cuda.launches == 3
    (warning,) = warnings(caplog)
    assert warning == (
        f"no CUDA graph of {{'images': (4, 224, 224, 3)}} ({call} failed: cudaErrorStreamCaptureInvalidated): "
        "kernels are queued one by one"
    )
    backend.close()
    gpu.assert_free()


def capturing(gpu: Gpu, stream: int) -> bool:
    return stream in gpu.cuda.captures


def test_a_synchronisation_by_a_thread_of_others_costs_an_attempt(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    def synchronise_once(stream: int) -> None:
        if capturing(gpu, stream):
            gpu.trt.on_execute = None
            thread = Thread(target=gpu.cuda.cudaDeviceSynchronize)
            thread.start()
            thread.join()

    gpu.trt.on_execute = synchronise_once
    backend = gpu.load()
    assert_right(answer(backend, 1, 9), gpu.bundle, 1, 9)
    assert (gpu.cuda.broken_captures, gpu.cuda.launches) == (1, 2)
    assert warnings(caplog) == []
    backend.close()


def test_threads_make_executors_one_after_the_other(gpu: Gpu) -> None:
    """While one captures, the other would make a context, which makes the device wait; and so would its end."""
    backend, idle = gpu.load(lanes=2), gpu.load(lanes=1)
    answer(idle, 1, 4)
    started, others = Event(), []

    def let_others_run(stream: int) -> None:
        if capturing(gpu, stream) and not started.is_set():
            started.set()
            others.append(pool.submit(answer, backend, 1, 40))
            others.append(pool.submit(idle.close))
            Event().wait(0.3)  # they would have broken it by now

    gpu.trt.on_execute = let_others_run
    with ThreadPoolExecutor(3) as pool:
        first: Future[np.ndarray] = pool.submit(answer, backend, 2, 9)
        assert_right(first.result(), gpu.bundle, 2, 9)
        assert_right(others[0].result(), gpu.bundle, 1, 40)
        others[1].result()
    assert gpu.cuda.broken_captures == 0
    backend.close()
    gpu.assert_free()


def test_nothing_is_collected_during_a_capture(gpu: Gpu) -> None:
    seen = []
    gpu.trt.on_execute = lambda stream: seen.append((capturing(gpu, stream), gc.isenabled()))
    backend = gpu.load()
    backend.encode_pictures(images(1))
    assert seen == [(False, True), (False, True), (True, False)]
    assert gc.isenabled()
    backend.close()


# Devices, threads and forks


def test_every_thread_runs_on_the_device_that_was_chosen(bundle: Bundle) -> None:
    gpu = make_gpu(bundle, cuda=FakeCuda(fake=FakeRuntime(count=2), ordinal=1))
    write_fake_engines(bundle, gpu.api)
    backend = gpu.load()

    def ask(length: int) -> tuple[str, np.ndarray]:
        gpu.cuda.fake.cudaSetDevice(0)  # as another library may do
        return current_thread().name, answer(backend, 1, length)

    with ThreadPoolExecutor(3) as pool:
        for length, (_, found) in zip((9, 40, 9), pool.map(ask, (9, 40, 9)), strict=True):
            assert_right(found, bundle, 1, length)
    assert set(gpu.cuda.stream_device.values()) == {1}
    backend.close()


def test_a_fork_uses_nothing_and_frees_nothing(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = gpu.load()
    held = gpu.cuda.leaks()
    with monkeypatch.context() as patch:
        patch.setattr(backend._origin, "_process", -1)
        for use in (
            lambda: backend.encode_pictures(images(1)),
            lambda: backend.encode_text(texts(1, 9), [[]]),
            lambda: backend.place_prefix(gpu.bundle.blank_prefix()),
            backend.warm_up,
            backend.load_grounder,
        ):
            with pytest.raises(BackendError, match="load the pipeline in each process"):
                use()
        backend.close()
        assert gpu.cuda.leaks() == held
    backend.close()
    gpu.assert_free()


# Memory


def test_shapes_that_were_not_used_for_long_are_dropped(gpu: Gpu) -> None:
    """Three executors fit into the share of a lane, as each counts for eight megabytes and a little."""
    gpu.cuda.fake.limit = 8 * 3 * 9 * MIB
    backend = gpu.load(lanes=1)
    prefixes = backend.encode_pictures(images(1)) * 4

    def ask(rows: int, length: int = 9) -> bool:
        made = gpu.trt.contexts
        found = backend.encode_text(texts(rows, length), [prefixes] * rows)
        assert found.shape[:2] == (rows, length)
        assert gpu.trt.living()["contexts"] <= 3
        return bool(gpu.trt.contexts > made)

    assert [ask(1), ask(2), ask(1), ask(4), ask(1)] == [True, True, False, True, False]  # in place of the pictures'
    assert [ask(1, 40), ask(1), ask(4), ask(2), ask(1, 40)] == [True, False, False, True, True]
    backend.close()
    gpu.assert_free()


def test_a_batch_that_memory_does_not_suffice_for_is_halved(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    backend = gpu.load(lanes=1)
    prefixes = backend.encode_pictures(images(4))
    gpu.trt.scratch_bytes = 10 * MIB
    gpu.cuda.fake.limit = gpu.cuda.device_bytes + 25 * MIB  # activations of two rows
    right = answer(OnnxRuntimeBackend(gpu.bundle), 4, 9)
    made = gpu.trt.contexts
    for _ in range(2):
        found = backend.encode_text(texts(4, 9), [prefixes] * 4)
        np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-4)
        assert gpu.trt.contexts == made + 2  # that of four rows did not come to be
    (warning,) = warnings(caplog)
    assert "cudaMalloc failed: cudaErrorMemoryAllocation" in warning
    assert "batches of 4 run as 2 for the time being" in warning
    backend.close()
    gpu.assert_free()


def test_for_one_row_other_shapes_give_way(gpu: Gpu) -> None:
    gpu.trt.scratch_bytes = 10 * MIB
    gpu.cuda.fake.limit = 45 * MIB
    backend = gpu.load(lanes=1)
    backend.encode_pictures(images(4))  # takes nearly all
    gpu.trt.scratch_bytes = 30 * MIB
    prefixes = backend.encode_pictures(images(1)) * 4
    assert gpu.trt.living()["contexts"] == 1
    gpu.trt.scratch_bytes = 50 * MIB
    with pytest.raises(DeviceMemoryError, match="end what else runs on GPU 0"):
        backend.encode_text(texts(1, 9), [prefixes])
    del prefixes
    backend.close()
    gpu.assert_free()


def test_a_library_that_runs_out_of_memory_is_asked_for_less(gpu: Gpu) -> None:
    backend = gpu.load(lanes=1)
    right, rows = answer(OnnxRuntimeBackend(gpu.bundle), 2, 9), []
    prefixes = backend.encode_pictures(images(4))

    def fail_for_two(_: int) -> None:
        rows.append(max(context.shapes.get("input_ids", (0,))[0] for context in gpu.trt.alive["contexts"]))
        gpu.trt.broken = rows[-1] == 2

    gpu.trt.on_execute = fail_for_two
    gpu.trt.reason = "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (Requested size was 9 bytes.)"
    found = backend.encode_text(texts(2, 9), [prefixes] * 2)
    np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-4)
    assert rows[:2] == [2, 1]
    backend.close()


# Fewer calls, and none that is slow for the first request


def test_all_inputs_of_a_text_are_one_copy(gpu: Gpu) -> None:
    backend = gpu.load()
    answer(backend, 1, 9)
    assert sorted(len(work) for work in gpu.cuda.graphs.values()) == [2, 3]  # pictures in; texts in and emissions out
    backend.close()


def test_after_warm_up_nothing_is_made(gpu: Gpu) -> None:
    backend = gpu.load(lanes=2)
    backend.warm_up([])
    lengths, rows = len({profile.length for profile in backend._profiles["text"]}), 3  # 1, 2, 4
    assert gpu.trt.contexts == 2 * (rows + rows * lengths)
    made = gpu.trt.contexts, gpu.cuda.allocations
    for count, length in ((1, 5), (3, 40), (4, gpu.bundle.manifest.limits.max_length)):
        assert_right(answer(backend, count, length), gpu.bundle, count, length)
    assert gpu.trt.contexts == made[0]
    backend.close()
    gpu.assert_free()
    with pytest.raises(BackendError, match="is closed"):
        backend.warm_up([])


def test_warm_up_of_some_shapes(gpu: Gpu) -> None:
    backend = gpu.load(lanes=2)
    backend.warm_up([WarmUpShape(texts=3, length=9, pictures=4), WarmUpShape(texts=0, length=0, pictures=1)])
    assert gpu.trt.contexts == 2 * 3
    assert_right(answer(backend, 4, 14), gpu.bundle, 4, 14)
    assert gpu.trt.contexts == 2 * 3
    backend.close()


# Kernels that TensorRT for RTX compiles


def cache_of(gpu: Gpu) -> Path:
    (folder,) = filter(Path.is_dir, (gpu.bundle.path / "engines").glob("*-portable-*"))
    return folder.with_name(f"{folder.name}.runtime-cache")


def compiled(gpu: Gpu) -> int:
    """Kernels that one process compiles; the fakes of two processes share nothing."""
    cuda = FakeCuda(gpu=gpu.cuda.gpu)
    process = Gpu(cuda, fake_api(cuda, "tensorrt-rtx"), gpu.bundle)
    backend = process.load(lanes=2)
    backend.warm_up([WarmUpShape(texts=1, length=9, pictures=4)])
    assert_right(answer(backend, 1, 9), gpu.bundle, 1, 9)
    backend.close()
    process.assert_free()
    return int(process.trt.compiled)


def test_kernels_are_compiled_once_for_all_lanes_and_processes(rtx: Gpu) -> None:
    assert compiled(rtx) == 2
    assert compiled(rtx) == 0
    newer = replace(rtx, api=fake_api(rtx.cuda, "tensorrt-rtx", "100.0"))
    newer.trt.ComputeCapability.__members__["SM90"] = 90  # so that engines could be built again for this GPU
    with pytest.raises(StaleEngineError) as caught:
        newer.load()
    assert "runtime-cache" not in str(caught.value)  # it is no engine
    assert compiled(replace(rtx, cuda=FakeCuda(gpu=replace(FAKE_GPU, name="NVIDIA Fake 2")))) == 2
    assert list(cache_of(rtx).parent.glob(".*")) == []


def test_kernels_of_later_shapes_are_kept_at_the_end(rtx: Gpu) -> None:
    backend = rtx.load()
    answer(backend, 1, 9)
    assert not cache_of(rtx).exists()
    backend.close()
    assert compiled(rtx) == 0


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "hvpnet_runtime"):
        yield caplog


@pytest.mark.parametrize("damage", ["rubbish", "link"])
def test_a_damaged_cache_is_made_anew(rtx: Gpu, damage: str, told: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"not ours")
    if damage == "link":
        cache_of(rtx).symlink_to(target)
    else:
        cache_of(rtx).write_bytes(b"rubbish")
    assert compiled(rtx) == 2
    assert "kernels are compiled again: " in told.text
    assert target.read_bytes() == b"not ours"
    assert compiled(rtx) == 0


def test_where_the_cache_cannot_be_written_all_goes_on(
    rtx: Gpu, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.runtime_cache.tempfile.mkstemp", refuse)
    assert compiled(rtx) == 2
    assert "kernels will be compiled again by the next process: read-only" in told.text
