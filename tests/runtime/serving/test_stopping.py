"""What a service in one process tells those whose requests it has no time for when it stops."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import httpx2
import pytest
from waiting import eventually

from hvpnet_runtime import Pipeline
from hvpnet_runtime.serving import server
from hvpnet_runtime.serving.batcher import Batcher
from hvpnet_runtime.serving.errors import StuckError
from hvpnet_runtime.serving.settings import Settings


def test_what_waits_for_a_backend_at_the_end_is_unavailable(
    ner_bundle: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than an error of the service, once the time for requests in hand is over."""
    monkeypatch.setattr(server, "_LAST_ANSWERS_SECONDS", 1)
    values = {"bundles": {"ner": ner_bundle}, "backend": "onnxruntime-cpu", "threads": 1, "stop_seconds": 0}
    hang, begun, run = Event(), Event(), Pipeline.run
    waiting = list[Any]()
    submit = Batcher.submit

    def hanging(*arguments: Any) -> Any:
        begun.set()
        hang.wait(60)
        return run(*arguments)

    def counted(*arguments: Any) -> Any:
        waiting.append(submit(*arguments))
        return waiting[-1]

    def ask(url: str) -> httpx2.Response:
        return httpx2.post(f"{url}/v1/extract", json={"tweets": [{"text": "a"}]}, timeout=60)

    with ThreadPoolExecutor(4) as clients:
        with (
            suppress(StuckError),
            server.local_service(Settings.parse(values), "127.0.0.1", free_port(), SimpleQueue()) as url,
        ):
            monkeypatch.setattr(Pipeline, "run", hanging)
            monkeypatch.setattr(Batcher, "submit", counted)
            first = clients.submit(ask, url)
            assert begun.wait(60)
            others = [clients.submit(ask, url) for _ in range(3)]
            assert eventually(lambda: len(waiting) == 4)
        hang.set()
        assert first.result().status_code == 500
        told = [(each.result().status_code, each.result().json()["detail"]) for each in others]
    assert told == [(503, "the service is stopping; try again later, or elsewhere")] * 3
