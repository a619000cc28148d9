"""What Ray has room for, and what goes wrong with it, said in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import ray

from hvpnet_runtime.bulk.on_ray import OnRay
from hvpnet_runtime.bulk.on_ray.cluster import MOST_TRIES, Actor, connect
from hvpnet_runtime.bulk.worker import Done, Failed
from hvpnet_runtime.errors import BulkError

pytestmark = pytest.mark.heavy


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
    def fail(*_: Any, **__: Any) -> None:
        raise kind("no node\nwithin 30 s")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(BulkError) as raised, connect(address):
        pass
    assert str(raised.value) == expected


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "asked", "backend", "expected"),
    [
        ([node(2)], OnRay(), "auto", (1, 2, 0)),
        ([node(64)], OnRay(), "auto", (16, 4, 0)),
        ([node(64), node(6), node(99, alive=False)], OnRay(), "auto", (17, 4, 0)),
        ([node(8), node(3)], OnRay(threads=2), "auto", (5, 2, 0)),
        ([node(8)], OnRay(copies=3), "auto", (3, 4, 0)),
        ([node(16, 1)], OnRay(), "auto", (1, 16, 1)),
        ([node(64), node(32, 4), node(8, 2)], OnRay(), "tensorrt", (6, 4, 1)),
        ([node(2, 4)], OnRay(), "auto", (2, 1, 1)),
        ([node(16, 1)], OnRay(), "onnxruntime-cpu", (4, 4, 0)),
        ([node(16, 1)], OnRay(), "openvino", (4, 4, 0)),
    ],
)
def test_what_a_cluster_has_room_for(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Any], asked: OnRay, backend: str, expected: tuple[int, int, int]
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    pool = asked.pool(backend)
    assert (pool.actors, pool.threads, pool.gpus) == expected


def test_a_cluster_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [node(4), node(2)])
    with pytest.raises(BulkError, match="no node of the Ray cluster has 8 CPUs"):
        OnRay(threads=8).pool("auto")


def test_a_part_is_not_tried_for_ever() -> None:
    tries = iter(range(1, 10))
    actor = Actor(lambda part: Done(part.number, b"", b"", 0, "fake"), lambda _: next(tries))
    row = {"number": 4, "first": 41, "rows": 10, "start": 0}
    for _ in range(MOST_TRIES):
        assert actor(row) == {"outcome": Done(4, b"", b"", 0, "fake")}
    outcome = actor(row)["outcome"]
    assert isinstance(outcome, Failed)
    assert str(outcome.error).startswith(f"the part at row 41 ended its process {MOST_TRIES} times")
