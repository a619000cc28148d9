"""Calls of a TensorRT library fail with typed errors that say what the library said about the call, nothing else."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hvpnet_runtime.backends.tensorrt.library import Library, load_library
from hvpnet_runtime.errors import BackendError, BuildError, DeviceMemoryError, MissingExtraError

NULL = TypeError("pybind11::init(): factory function returned nullptr")


def failing(error: Exception) -> Any:
    def call(*_: Any) -> None:
        raise error

    return call


def library(**trt: Any) -> Library:
    return Library("tensorrt", SimpleNamespace(**trt), None, ["the reason of an earlier call"])


def test_what_the_library_makes_is_given_on() -> None:
    api = library(Runtime=lambda logger: "a runtime", Builder=lambda logger: "a builder")
    assert api.runtime() == "a runtime"
    assert api.last_error() == "the reason of an earlier call"
    assert api.builder() == "a builder"
    assert api.last_error() == "it gave no reason"  # about this build


def test_null_pointers_are_typed_errors() -> None:
    api = library(Runtime=failing(NULL), Builder=failing(NULL))
    with pytest.raises(BackendError, match=r"^tensorrt cannot run here: pybind11::init\(\): factory function returned"):
        api.runtime()
    with pytest.raises(BuildError, match=r"^tensorrt cannot build here: pybind11::init\(\): factory function returned"):
        api.builder()


@pytest.mark.parametrize("result", [None, False])
def test_only_what_was_said_about_the_call_is_shown(result: object) -> None:
    api = library()
    with pytest.raises(BackendError, match=r"^tensorrt cannot load it: it gave no reason$"):
        api.call("load it", lambda: result)

    def fail(plan: str) -> object:
        api.errors.append(f"bad magic in {plan}")
        return result

    with pytest.raises(BackendError, match=r"^tensorrt cannot load it: bad magic in text$"):
        api.call("load it", fail, "text")
    assert api.call("count", lambda: 0) == 0


@pytest.mark.parametrize(
    "said", ["Error Code 2: OutOfMemory (Requested size was 9 bytes.)", "Cuda Runtime (out of memory)"]
)
def test_too_little_memory_has_an_error_of_its_own(said: str) -> None:
    api = library()

    def fail() -> None:
        api.errors.extend([said, "the call failed"])

    with pytest.raises(DeviceMemoryError, match=r"^tensorrt cannot run: the call failed$"):
        api.call("run", fail)
    with pytest.raises(BuildError, match=r"^tensorrt cannot build: the call failed$"):
        api.call("build", fail, error=BuildError)


def test_reasons_do_not_pile_up() -> None:
    api = library()
    for number in range(1000):
        with pytest.raises(BackendError, match=f": number {number}$"):
            api.call("run", lambda number=number: api.errors.append(f"number {number}"))
    assert len(api.errors) < 300


def test_types_that_numpy_lacks_keep_their_name() -> None:
    assert library(nptype=lambda _: np.float16).dtype("HALF") == "float16"
    assert library(nptype=failing(TypeError("no equivalent"))).dtype("BF16") == "BF16"


@pytest.mark.parametrize(
    "error", [ImportError("libnvinfer.so.11: cannot open"), OSError("cannot open"), RuntimeError()]
)
def test_a_library_that_does_not_load(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvpnet_runtime.backends.tensorrt.library.import_module", failing(error))
    with pytest.raises(BackendError, match=r"^the package tensorrt_rtx does not load: "):
        load_library("tensorrt-rtx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match="needs the package tensorrt_rtx"):
        load_library("tensorrt-rtx")
