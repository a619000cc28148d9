"""The shipped configuration file, deployed to a cluster by Ray's own commands, as docs/deploy.md says."""

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import pytest
import yaml
from places import ROOT
from prometheus_client.parser import text_string_to_metric_families
from waiting import eventually, settled

from hvpnet_runtime import Tweet

pytestmark = pytest.mark.heavy

CONFIG = ROOT / "deploy" / "serve.yaml"
BIN = Path(sys.executable).parent
PATIENCE = 240  # seconds until something counts as hung
TOKEN = {"Authorization": "Bearer secret"}
TEXTS = ["Jordan was great", "Paris", "nobody knows"]


@pytest.fixture(scope="module")
def environment():
    """Every command has the service's token, the cluster's, and the cluster's own ports on loopback."""
    return os.environ | {
        "HVPNET_TOKEN": "secret",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture(scope="module")
def dashboard(environment, free_port):
    """A cluster of one node, and where it takes deployments."""
    with tempfile.TemporaryDirectory(prefix="hv", ignore_cleanup_errors=True) as folder:  # paths of sockets are short
        port = free_port()
        command = [BIN / "ray", "start", "--head", "--block", "--num-cpus", "2", "--temp-dir", folder]
        command += ["--node-ip-address", "127.0.0.1", "--port", str(free_port()), "--dashboard-port", str(port)]
        command += ["--system-config", '{"metrics_report_interval_ms": 500}']  # instead of 10 s
        with (Path(folder) / "said").open("w") as said:
            cluster = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.terminate()  # which ends all its processes
            cluster.wait(PATIENCE)


def answer(url, headers):
    try:
        return httpx2.post(
            f"{url}/v1/extract", json={"tweets": [{"text": text} for text in TEXTS]}, headers=headers, timeout=PATIENCE
        )
    except httpx2.TransportError:
        return None


def batches(url):
    """How many batches each engine ran, by replica, as the metrics say."""
    page = httpx2.get(f"{url}/metrics", headers=TOKEN, timeout=PATIENCE).text
    return {
        sample.labels["replica"]: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "ray_hvpnet_batch_tweets_count"
    }


@pytest.fixture(scope="module")
def config(ner_bundle, free_port):
    """The shipped file as it is, but for where things are and what this machine has."""
    values = yaml.safe_load(CONFIG.read_text("utf-8"))
    values["http_options"]["port"] = free_port()
    args = values["applications"][0]["args"]
    args["bundles"]["ner"] = str(ner_bundle)
    args["inference"]["gpus"] = 0
    for deployment in ("ingress", "preparation", "grounding", "inference"):
        args[deployment] |= {"least": 1, "cpus": 0.1}
    return values


def test_the_shipped_file(dashboard, environment, config, answers, close_to, tmp_path):
    """It answers with the token only; and batching changes without a new engine."""
    file, url = tmp_path / "serve.yaml", f"http://127.0.0.1:{config['http_options']['port']}"

    def deploy():
        file.write_text(yaml.safe_dump(config), "utf-8")
        command = [BIN / "serve", "deploy", file, "--address", dashboard]
        return not subprocess.run(
            command, env=environment, capture_output=True, timeout=PATIENCE, check=False
        ).returncode

    def batches_of_a_request():
        before = settled(lambda: batches(url))
        assert answer(url, TOKEN).status_code == 200
        after = settled(lambda: batches(url))
        assert after.keys() == before.keys()  # it is the same engine
        return sum(after.values()) - sum(before.values())

    eventually(deploy, PATIENCE)  # once the dashboard listens
    found = eventually(lambda: (got := answer(url, TOKEN)) and got.status_code == 200 and got.json(), PATIENCE)
    assert close_to(found, {"bundle": "ner", "results": answers("ner", [Tweet(text=text) for text in TEXTS])})
    assert answer(url, {}).status_code == 401
    assert httpx2.get(f"{url}/readyz", timeout=PATIENCE).json() == {"status": "ready"}
    assert batches_of_a_request() == 1
    config["applications"][0]["deployments"] = [{"name": "inference-ner", "user_config": {"size": 1, "wait_ms": 0}}]
    assert deploy()
    eventually(lambda: batches_of_a_request() == len(TEXTS), PATIENCE)
