"""Engines are added under load, and share it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from ray import serve

from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.on_ray.start import ray_service

pytestmark = pytest.mark.heavy

CLIENTS = 6
PATIENCE = 120  # seconds for what must happen to happen; nothing is measured


@pytest.mark.usefixtures("no_ray")
def test_a_replica_more_under_load(ner_bundle, free_port):
    """And no request fails while it comes."""
    values = {
        "bundles": {"ner": ner_bundle},
        "threads": 1,
        "batching": {"size": 1},
        "inference": {"least": 1, "most": 2},
    }
    done = threading.Event()

    def send_on(url):
        statuses = set()
        with httpx2.Client(timeout=PATIENCE) as client:
            while not done.is_set():
                body = {"tweets": [{"text": "Jordan was great"}] * 8}
                statuses.add(client.post(f"{url}/v1/extract", json=body).status_code)
        return statuses

    def engines():
        return serve.status().applications["default"].deployments["inference-ner"].replica_states.get("RUNNING", 0)

    with ray_service(Settings.parse(values), "127.0.0.1", free_port()) as url, ThreadPoolExecutor(CLIENTS) as clients:
        assert engines() == 1
        found = [clients.submit(send_on, url) for _ in range(CLIENTS)]
        deadline = time.monotonic() + PATIENCE
        while engines() < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
        grown = engines()
        done.set()
        assert {status for client in found for status in client.result()} == {200}
    assert grown == 2
