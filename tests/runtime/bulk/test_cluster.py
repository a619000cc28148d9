"""What goes wrong with Ray, or on it, keeps its type and its words."""

from collections.abc import Callable
from typing import Any

import pytest
import ray

from hvpnet_runtime import BackendError, BundleError, InputError
from hvpnet_runtime.bulk.cluster import _finished, connect
from hvpnet_runtime.bulk.worker import Done, Failed
from hvpnet_runtime.errors import BulkError, HvpnetError, MissingExtraError, ResumeError, StaleEngineError


@pytest.mark.parametrize(
    "kind", [BackendError, StaleEngineError, BundleError, InputError, BulkError, ResumeError, HvpnetError]
)
def test_errors_of_actors_keep_their_type(kind: type[HvpnetError]) -> None:
    with pytest.raises(kind, match=r"^what and how$") as raised:
        _finished(Failed(3, kind.__name__, "what and how", "Traceback"))
    assert raised.type is kind


def test_a_message_that_its_class_worded_is_not_worded_again() -> None:
    error = MissingExtraError("openvino", "openvino", "the backend openvino")
    with pytest.raises(MissingExtraError) as raised:
        _finished(Failed(3, "MissingExtraError", str(error), "Traceback"))
    assert str(raised.value) == str(error)


@pytest.mark.parametrize("name", ["ZeroDivisionError", "sys", "__name__"])
def test_other_errors_name_their_part(name: str) -> None:
    with pytest.raises(BulkError, match=rf"^{name} in part 3: by zero$"):
        _finished(Failed(3, name, "by zero", "Traceback"))


def test_what_is_done_passes() -> None:
    done = Done(3, b"answers", b"", 0, "onnxruntime-cpu")
    assert _finished(done) is done


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that has not started Ray."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.usefixtures("without_ray")
def test_a_cluster_that_is_not_there(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BulkError, match=rf"^cannot join the Ray cluster at {address}: .*refused"), connect(address):
        pass


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (None, "cannot start Ray on this machine: no node within 30 s"),
        ("auto", "cannot join the Ray cluster at auto: no node within 30 s"),
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, ConnectionError, ValueError])
def test_ray_that_does_not_come_up(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], address: str | None, expected: str
) -> None:
    def fail(**_: Any) -> None:
        raise kind("no node\nwithin 30 s")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(BulkError) as raised, connect(address):
        pass
    assert str(raised.value) == expected
