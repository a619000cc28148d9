"""Which GPUs a process may use, as the driver counts them."""

import sys

import pytest

from hvpnet_runtime.backends.cuda import visible_gpus

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
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert visible_gpus() == []


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
