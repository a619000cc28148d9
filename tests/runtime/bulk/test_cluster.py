"""What goes wrong with Ray is said in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import ray

from hvpnet_runtime.bulk.cluster import connect
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
    def fail(**_: Any) -> None:
        raise kind("no node\nwithin 30 s")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(BulkError) as raised, connect(address):
        pass
    assert str(raised.value) == expected
