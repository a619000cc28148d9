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
