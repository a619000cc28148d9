"""Which GPUs a process may use, and that every call is made on the right one and fails with a typed error."""

import gc
import inspect
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeRuntime, Status
from packaging.requirements import Requirement
from places import ROOT

from hvpnet_runtime import Bundle
from hvpnet_runtime.backends import BACKENDS
from hvpnet_runtime.backends.captures import exclusive, no_collection
from hvpnet_runtime.backends.cuda import Cuda, find_device, visible_gpus
from hvpnet_runtime.errors import BackendError, DeviceMemoryError, MissingExtraError

runtime = pytest.importorskip("cuda.bindings.runtime")


@pytest.mark.parametrize(
    ("count", "given", "expected"),
    [
        (1, None, ["0"]),
        (3, None, ["0", "1", "2"]),
        (2, "5,3", ["5", "3"]),
        (2, " GPU-8f , GPU-2c", ["GPU-8f", "GPU-2c"]),
        (1, "3,99,4", ["3"]),  # CUDA looks no further than the first that is not there
    ],
)
def test_gpus_that_are_there(
    monkeypatch: pytest.MonkeyPatch, count: int, given: str | None, expected: list[str]
) -> None:
    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaSuccess, count))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == expected


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaErrorNoDevice, 0))
    assert visible_gpus() == []


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is named is the one of the backend."""
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert visible_gpus() == []
    extras = {name: name for name in ("tensorrt", "tensorrt-rtx")}
    extras |= {"onnxruntime-tensorrt": "gpu-tensorrt", "onnxruntime-cuda": "gpu"}
    for name, extra in extras.items():
        with pytest.raises(MissingExtraError, match=rf"needs the package cuda-bindings: .*'hvpnet\[{extra}\]'"):
            BACKENDS[name](cast("Bundle", None), None, None, 0)


@pytest.mark.gpu
def test_a_gpu_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = visible_gpus()
    assert gpus
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus[0])
    assert visible_gpus()[0] == gpus[0]


@pytest.mark.skipif(find_device() is not None, reason="the addresses are not real ones")
def test_the_cuda_bindings_take_our_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong arguments would be a TypeError; without a driver every call gets as far as its error code."""
    cuda = Cuda.__new__(Cuda)
    cuda.ordinal = 0
    cuda._bind(runtime)
    monkeypatch.setattr(cuda, "use", lambda: None)
    address, stream, event, graph = 64, 16, 32, 48
    calls: dict[str, tuple[Any, ...]] = {
        "device": (),
        "total_memory": (),
        "malloc": (8,),
        "free": (address,),
        "malloc_host": ((2,), np.float32),
        "free_host": (np.zeros(1),),
        "stream": (),
        "destroy_stream": (stream,),
        "synchronize": (stream,),
        "copy": (address, address, 4, stream),
        "copy_many": ([address], [address], [4], stream),
        "event": (),
        "destroy_event": (event,),
        "record": (event, stream),
        "wait": (stream, event),
        "begin_capture": (stream,),
        "end_capture": (stream,),
        "launch": (graph, stream),
        "destroy_graph": (graph,),
    }
    methods = {name for name, _ in inspect.getmembers(Cuda, inspect.isfunction) if not name.startswith("_")}
    assert set(calls) == methods - {"use", "exclusive"}
    for name, arguments in calls.items():
        with pytest.raises(BackendError, match=r"^cuda\w+ failed: cudaError(InsufficientDriver|NoDevice)$"):
            getattr(cuda, name)(*arguments)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaSuccess, 2))
    assert Cuda(1).ordinal == 1
    for ordinal in (2, -1):
        with pytest.raises(BackendError, match=f"there is no GPU {ordinal}: this process may use GPUs 0 to 1"):
            Cuda(ordinal)


def test_a_fork_of_a_process_that_used_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cudaGetDeviceCount", lambda: (runtime.cudaError_t.cudaSuccess, 1))
    Cuda()
    assert Cuda._first is not None
    monkeypatch.setattr(Cuda._first, "_process", -1)
    with pytest.raises(BackendError, match="CUDA was used before this process was forked"):
        Cuda()


def test_every_thread_is_put_on_the_device_of_the_call() -> None:
    """Two devices, used in turns by the same threads; and another library that changes the thread's device."""
    fake = FakeRuntime(count=3)
    cudas = [FakeCuda(fake=fake, ordinal=ordinal) for ordinal in (1, 2)]

    def streams(_: int) -> list[int]:
        return [fake.stream_device[cuda.stream()] for cuda in cudas * 2]

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(streams, range(6))) == [[1, 2, 1, 2]] * 6
    cudas[0].use()
    fake.cudaSetDevice(0)
    cudas[0].use()
    assert fake.current_device() == 1


def test_too_little_memory_has_an_error_of_its_own() -> None:
    cuda = FakeCuda()
    cuda.fake.limit = 1000
    address = cuda.malloc(600)
    with pytest.raises(DeviceMemoryError, match="cudaMalloc failed: cudaErrorMemoryAllocation: end what else runs on"):
        cuda.malloc(600)
    cuda.free(address)
    cuda.free(cuda.malloc(600))
    assert cuda.leaks() == {}


@pytest.mark.parametrize("refused", [False, True])
def test_many_pieces_are_copied_by_one_call_where_cuda_can(*, refused: bool) -> None:
    cuda = FakeCuda()
    if refused:
        cuda.fake.failing["cudaMemcpyBatchAsync"] = (1, Status.cudaErrorNotSupported)
    stream, source, target = cuda.stream(), cuda.malloc_host((6,), np.uint8), cuda.malloc_host((6,), np.uint8)
    source[:] = [1, 2, 3, 4, 5, 6]
    target[:] = 0
    sources = [source.ctypes.data + place for place in (4, 0, 3)]
    targets = [target.ctypes.data + place for place in (0, 2, 5)]
    for _ in range(2):  # refused once, it is not tried again
        cuda.copy_many(targets, sources, [2, 3, 1], stream)
    cuda.synchronize(stream)
    assert target.tolist() == [5, 6, 1, 2, 3, 4]
    assert cuda.copies == (6 if refused else 2)


def test_collection_is_held_off_until_the_last_ends() -> None:
    assert gc.isenabled()
    first, second = no_collection(), no_collection()
    with first:
        second.__enter__()  # of another capture, which ends later
        assert not gc.isenabled()
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()  # as it was found
    finally:
        gc.enable()


def test_a_device_has_one_lock_and_each_its_own() -> None:
    assert exclusive(0) is exclusive(0) is FakeCuda().exclusive()
    assert exclusive(0) is not exclusive(1)


def test_the_extras_ask_for_libraries_that_go_together() -> None:
    """All for CUDA 13, ONNX Runtime with the CUDA libraries it needs, and its TensorRT provider with TensorRT 10."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    asked = {
        extra: {each.name: each for each in map(Requirement, extras[extra])}
        for extra in ("gpu", "gpu-tensorrt", "tensorrt", "tensorrt-rtx")
    }
    assert asked["gpu"]["onnxruntime-gpu"].extras == {"cuda", "cudnn"}
    assert not list(asked["gpu"]["onnxruntime-gpu"].specifier.filter(["1.26.0", "1.27.0"]))
    assert asked["gpu-tensorrt"]["hvpnet"].extras == {"gpu"}
    tensorrt = ["10.9.0", "10.14.1", "11.0.0"]
    assert list(asked["gpu-tensorrt"]["tensorrt-cu13"].specifier.filter(tensorrt)) == ["10.14.1"]
    assert list(asked["tensorrt"]["tensorrt-cu13"].specifier.filter(tensorrt)) == ["10.14.1", "11.0.0"]
    for extra in ("gpu", "tensorrt", "tensorrt-rtx"):
        assert list(asked[extra]["cuda-bindings"].specifier.filter(["12.9.0", "13.0.1", "14.0.0"])) == ["13.0.1"]
