"""`hvpnet serve` as a user runs it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from hvpnet.cli import main
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.local import local_service

COMMAND = [str(Path(sys.executable).with_name("hvpnet")), "serve"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_serve_until_terminated(ner_bundle, tmp_path):
    """It says where it listens, asks for the token, and stops in order."""
    (tmp_path / "settings.toml").write_text("threads = 1\n[limits]\ntext_characters = 9\n", "utf-8")
    command = [*COMMAND, f"people={ner_bundle}", "--port", str(free_port()), "--token-env", "HVPNET_TEST_TOKEN"]
    command += ["--settings", str(tmp_path / "settings.toml")]
    environment = os.environ | {"HVPNET_TEST_TOKEN": "secret"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "serving at" in line or "error" in line)
        url = line.removeprefix("hvpnet: serving at ").partition(",")[0]
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan"}]}).status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan"}]}).json()["bundle"] == "people"
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan was"}]}).status_code == 422
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["nowhere"], "nowhere is not a bundle"),
        (["a=x", "a=y"], "two bundles are named 'a'"),
        (["x", "--settings", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["a b=x"], "bundles.a b"),
        (["x", "--token-env", "HVPNET_NO_SUCH_TOKEN"], "no bearer token"),
    ],
)
def test_errors_are_one_line(capsys, arguments, match):
    assert main(["serve", *arguments]) == 1
    error = capsys.readouterr().err
    assert match in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("hvpnet: error: ")


def test_a_port_that_is_taken(ner_bundle, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", str(ner_bundle), "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot listen at 127.0.0.1" in capsys.readouterr().err.splitlines()[-1]


def test_an_engine_that_does_not_start(ner_bundle):
    """The replica's own error, in one line."""
    settings = Settings.parse({"bundles": {"ner": ner_bundle}, "backend": "abacus"})
    error = r"^engine-ner does not start: .*BackendError: there is no backend 'abacus'"
    with pytest.raises(UnavailableError, match=error), local_service(settings, "127.0.0.1", free_port()):
        pass
