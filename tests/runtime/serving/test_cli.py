"""`hvpnet serve` as a user runs it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from hvpnet.cli import main
from hvpnet_runtime.ray_processes import start_local_ray
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.on_ray.start import ray_service

pytestmark = pytest.mark.heavy

COMMAND = [str(Path(sys.executable).with_name("hvpnet")), "serve"]


def started(arguments, **environment):
    """`hvpnet serve` as a process, and where it listens."""
    process = subprocess.Popen([*COMMAND, *arguments], env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if "serving at" in line or "error" in line)
    return process, line.removeprefix("hvpnet: serving at ").partition(",")[0]


@pytest.fixture(params=[(), ("--ray",)], ids=["one process", "ray"])
def form(request):
    """Options for either form of the service."""
    return request.param


def test_serve_until_terminated(form, ner_bundle, tmp_path, free_port):
    """It says where it listens, asks for the token, and stops in order."""
    (tmp_path / "settings.toml").write_text("threads = 1\n[limits]\ntext_characters = 9\n", "utf-8")
    arguments = [*form, f"people={ner_bundle}", "--port", str(free_port()), "--token-env", "HVPNET_TEST_TOKEN"]
    arguments += ["--settings", str(tmp_path / "settings.toml")]
    process, url = started(arguments, HVPNET_TEST_TOKEN="secret")
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan"}]}).status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan"}]}).json()["bundle"] == "people"
            assert client.post("/v1/extract", json={"tweets": [{"text": "Jordan was"}]}).status_code == 422
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_requests_in_hand_are_answered_before_it_stops(form, ner_bundle, free_port):
    """Clients send all the time, each on a new connection, until they get anything but an answer: that is a 503 which
    says why, or nobody listens any more. None of them is hung up on."""
    process, url = started([*form, f"people={ner_bundle}", "--port", str(free_port())])
    body = {"tweets": [{"text": f"Jordan was great {number}"} for number in range(32)]}
    answered, last = [], []

    def send_on():
        while True:
            try:
                response = httpx2.post(f"{url}/v1/extract", json=body, timeout=60)
            except httpx2.TransportError as error:
                last.append(error)
                return
            if response.status_code != 200:
                last.append(response)
                return
            answered.append(len(response.json()["results"]))

    clients = [threading.Thread(target=send_on) for _ in range(6)]
    try:
        for client in clients:
            client.start()
        while len(answered) < 30 and not last:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert set(answered) == {32}
    assert len(last) == len(clients)
    refused = [end for end in last if not isinstance(end, httpx2.ConnectError)]
    assert [end for end in refused if not isinstance(end, httpx2.Response)] == []
    assert {(end.status_code, end.json()["title"]) for end in refused} <= {(503, "UnavailableError")}


LOST = """
import sys
from hvpnet.cli import main
from hvpnet_runtime.backends.base import HostBackend
from hvpnet_runtime.errors import BackendError

def lost(*_):
    raise BackendError("the device is lost")

HostBackend.encode_text, HostBackend.warm_up = lost, lambda *_: None
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def test_a_backend_that_failed_for_good_ends_it(ner_bundle, free_port):
    command = [sys.executable, "-c", LOST, f"people={ner_bundle}", "--port", str(free_port())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "serving at" in line)
        url = line.removeprefix("hvpnet: serving at ").partition(",")[0]
        response = httpx2.post(f"{url}/v1/extract", json={"tweets": [{"text": "Jordan"}]}, timeout=60)
        assert (response.status_code, response.json()["detail"]) == (500, "the device is lost")
        assert process.wait(60) == 1
        assert process.stderr.read().splitlines()[-1] == (
            "hvpnet: error: the backend of people failed for good: the device is lost"
        )
    finally:
        process.kill()


STUCK = """
import sys, time
from hvpnet.cli import main
from hvpnet_runtime.backends.base import HostBackend

def stuck(*_):
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(3600)

HostBackend.encode_text, HostBackend.warm_up = stuck, lambda *_: None
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def test_a_second_signal_ends_it_though_a_backend_is_at_work(ner_bundle, free_port):
    command = [sys.executable, "-c", STUCK, f"people={ner_bundle}", "--port", str(free_port())]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "serving at" in line)
        url = line.removeprefix("hvpnet: serving at ").partition(",")[0]
        with ThreadPoolExecutor(1) as client:
            ask = client.submit(httpx2.post, f"{url}/v1/extract", json={"tweets": [{"text": "Jordan"}]}, timeout=60)
            assert any("stuck" in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            assert any("stopping" in line for line in process.stderr)
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
            assert process.stderr.read().splitlines()[-1] == "hvpnet: interrupted"
            assert ask.exception(60) is not None
    finally:
        process.kill()


def test_it_stops_though_ray_died(ner_bundle, free_port):
    """As when all processes of the service are told to stop at once."""
    process, _ = started(["--ray", f"people={ner_bundle}", "--port", str(free_port())])
    try:
        subprocess.run(["pkill", "-KILL", "--parent", str(process.pid), "raylet"], check=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("seconds", "signals", "code", "said"),
    [
        (0.5, 1, 0, "1 requests in hand were not answered: they took longer than stop_seconds, 0.5"),
        (3600, 2, 130, "interrupted"),
    ],
)
def test_a_request_in_hand_that_never_ends(form, ner_bundle, tmp_path, free_port, seconds, signals, code, said):
    """It is waited for as long as the settings say, or until a second signal."""
    (tmp_path / "settings.toml").write_text(f"stop_seconds = {seconds}\nlimits = {{body_seconds = 3600}}\n", "utf-8")
    port = free_port()
    process, _ = started(
        [*form, f"people={ner_bundle}", "--port", str(port), "--settings", str(tmp_path / "settings.toml")]
    )
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            head = "POST /v1/extract HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
            connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert connection.recv(99).startswith(b"HTTP/1.1 100")  # its body is being read: it is in hand
            process.send_signal(signal.SIGTERM)
            for _ in range(signals - 1):
                assert "stopping" in next(process.stderr)
                time.sleep(1)
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == code
        assert said in process.stderr.read()
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
        (["x", "--token-env", ""], "token"),
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


@pytest.mark.parametrize("port", [0, -1, 65_536])
def test_no_port(capsys, port):
    assert main(["serve", "x", "--port", str(port)]) == 1
    assert f"--port {port}: a port is a number from 1 to 65535" in capsys.readouterr().err


LISTENING = """
import sys
import urllib.request
from hvpnet_runtime.ray_processes import start_local_ray
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.on_ray.start import ray_service

bundle, port = sys.argv[1:]
with ray_service(Settings.parse({"bundles": {"ner": bundle}, "threads": 1}), "0.0.0.0", int(port)):
    import ray

    (node,) = ray.nodes()
    health = urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz").status
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").status
    print("found", node["NodeManagerAddress"], ray.get_runtime_context().gcs_address, health, metrics)
"""


def test_ray_on_this_machine_is_on_loopback(ner_bundle, free_port):
    """Also where the service itself listens at every address."""
    command = [sys.executable, "-c", LISTENING, str(ner_bundle), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (found,) = (line for line in done.stdout.splitlines() if line.startswith("found "))  # among what Serve says
    node, gcs, health, metrics = found.split()[1:]
    assert (node, gcs.rpartition(":")[0]) == ("127.0.0.1", "127.0.0.1")
    assert (health, metrics) == ("200", "200")


@pytest.mark.usefixtures("no_ray")
def test_ray_that_does_not_start(ner_bundle, monkeypatch, free_port):
    def fails(*_, **__):
        raise RuntimeError("no room\nfor it")

    monkeypatch.setattr("ray.init", fails)
    settings = Settings.parse({"bundles": {"ner": ner_bundle}})
    with (
        pytest.raises(UnavailableError, match=r"^Ray does not start: no room for it$"),
        ray_service(settings, "127.0.0.1", free_port()),
    ):
        pass


def test_ray_gets_a_second_chance(monkeypatch, caplog):
    """A first process of Ray now and then never says where it listens."""
    outcomes: list[Exception | None] = [RuntimeError("Timed out waiting for file\nport"), None]

    def starts(address, **options):
        asked.append((address, options))
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    asked: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr("ray.init", starts)
    start_local_ray(log_to_driver=False)
    assert asked == [("local", {"include_dashboard": False, "log_to_driver": False})] * 2
    assert caplog.messages == ["Ray did not start and is started once more: Timed out waiting for file port"]


@pytest.mark.usefixtures("no_ray")
def test_an_engine_that_does_not_start(ner_bundle, free_port):
    """The replica's own error, in one line."""
    settings = Settings.parse({"bundles": {"ner": ner_bundle}, "backend": "abacus"})
    error = r"^inference-ner does not start: .*BackendError: there is no backend 'abacus'"
    with pytest.raises(UnavailableError, match=error), ray_service(settings, "127.0.0.1", free_port()):
        pass
