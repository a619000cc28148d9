"""The shipped configuration file, deployed to a cluster by Ray's own commands, as docs/deploy.md says."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import pytest
import yaml

from hvpnet_runtime import Tweet

CONFIG = Path(__file__).parents[2] / "deploy" / "serve.yaml"
BIN = Path(sys.executable).parent
PATIENCE = 240  # seconds until something counts as hung
TWEET = {"tweets": [{"text": "Jordan was great"}]}


@pytest.fixture(scope="module")
def environment():
    """Of every command: the service's token, and the cluster's; and the cluster's own ports on loopback."""
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
        with (Path(folder) / "said").open("w") as said:
            cluster = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            cluster.terminate()  # which ends all its processes
            cluster.wait(PATIENCE)


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def answer(url, token):
    try:
        return httpx2.post(f"{url}/v1/extract", json=TWEET, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    except httpx2.TransportError:
        return None


def test_the_shipped_file(dashboard, environment, ner_bundle, free_port, answers, close_to, tmp_path):
    """As it is, but for where things are and what this machine has."""
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    config["http_options"]["port"] = port = free_port()
    args = config["applications"][0]["args"]
    args["bundles"]["ner"] = str(ner_bundle)
    args["engine"]["gpus"] = 0
    for deployment in ("ingress", "preparation", "engine"):
        args[deployment] |= {"least": 1, "cpus": 0.1}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config), "utf-8")
    deploy = [BIN / "serve", "deploy", tmp_path / "serve.yaml", "--address", dashboard]

    def deployed():
        return not subprocess.run(
            deploy, env=environment, capture_output=True, timeout=PATIENCE, check=False
        ).returncode

    eventually(deployed)  # once the dashboard listens
    url = f"http://127.0.0.1:{port}"
    found = eventually(lambda: (got := answer(url, "secret")) and got.status_code == 200 and got.json())
    assert close_to(found, {"bundle": "ner", "results": answers("ner", [Tweet(text="Jordan was great")])})
    assert answer(url, "guess").status_code == 401
    assert httpx2.get(f"{url}/readyz").json() == {"status": "ready"}
