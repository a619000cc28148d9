"""What a running `hvpnet serve` lets in: its sockets, its secrets, and messages to Ray's own servers."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest

pytestmark = pytest.mark.heavy

HVPNET = str(Path(sys.executable).with_name("hvpnet"))
LISTENING = "0A"  # the state, in /proc/net/tcp
LOOPBACK = ("0100007F", f"{'0' * 16}FFFF00000100007F", f"{'0' * 24}01000000")  # 127.0.0.1, twice, and ::1
HOSTILE = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/nowhere/token"}


def below(root: int) -> set[int]:
    """A process and all under it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = {root}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(processes: set[int]) -> dict[int, bool]:
    """Ports of TCP that these processes listen at, and whether on loopback only."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if fields[3] == LISTENING:
                sockets[f"socket:[{fields[9]}]"] = int(port, 16), host in LOOPBACK
    found = {}
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target in sockets:
                port, on_loopback = sockets[target]
                found[port] = on_loopback and found.get(port, True)
    return found


class Touch:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def knock(port: int, message: bytes) -> grpc.StatusCode | None:
    """What a replica's server says to a message without the token; None where nobody speaks gRPC."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(message, timeout=5)
        except grpc.RpcError as error:
            refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)
            return error.code() if error.code() in refused else None
        return grpc.StatusCode.OK


def test_only_the_service_listens_and_nothing_answers_without_the_token(ner_bundle, free_port, tmp_path):
    """Whatever the environment says, and though the home folder cannot be written to."""
    port, home = free_port(), tmp_path / "home"
    home.touch()  # a file: no folder can be made in it, not by root either
    command = [HVPNET, "serve", "--ray", str(ner_bundle), "--host", "0.0.0.0", "--port", str(port)]
    with subprocess.Popen(
        command, env=os.environ | HOSTILE | {"HOME": str(home)}, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "serving at" in line:
                break
        else:
            pytest.fail("".join(lines))
        try:
            processes = below(process.pid)
            ports = listening(processes)
            assert [each for each, on_loopback in ports.items() if not on_loopback] == [port]
            pickled = pickle.dumps(Touch(tmp_path / "touched"))
            message = ASGIRequest(pickled_request_metadata=pickled, request_args=pickled).SerializeToString()
            answers = {each: knock(each, message) for each in ports if each != port}
            assert grpc.StatusCode.OK not in answers.values()
            assert not (tmp_path / "touched").exists()
            assert list(answers.values()).count(grpc.StatusCode.UNAUTHENTICATED) >= 3  # a replica of each deployment
            gcs = next(each for each in processes if "gcs_server" in Path(f"/proc/{each}/cmdline").read_text())
            environment = dict(
                item.split("=", 1) for item in Path(f"/proc/{gcs}/environ").read_text().split("\0") if "=" in item
            )
            token = environment["RAY_AUTH_TOKEN"]
            assert not any(token in Path(f"/proc/{each}/cmdline").read_text() for each in processes)
            session = Path("/tmp/ray/session_latest")
            written = (file for file in session.rglob("*") if file.is_file() and not file.is_symlink())
            assert not any(token.encode() in file.read_bytes() for file in written)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert home.is_file()


def test_in_one_process_nothing_else_listens(ner_bundle, free_port, tmp_path):
    port, home = free_port(), tmp_path / "home"
    home.touch()
    command = [HVPNET, "serve", str(ner_bundle), "--host", "0.0.0.0", "--port", str(port)]
    with subprocess.Popen(
        command, env=os.environ | HOSTILE | {"HOME": str(home)}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = [process.stderr.readline(), process.stderr.readline()]
            assert "serving at" in lines[-1], lines
            assert below(process.pid) == {process.pid}
            assert listening({process.pid}) == {port: False}
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_annotate_needs_no_home(ner_bundle, tmp_path):
    (tmp_path / "home").touch()
    (tmp_path / "in.jsonl").write_text('{"text": "fine"}\n')
    done = subprocess.run(
        [HVPNET, "annotate", str(ner_bundle), str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")],
        env=os.environ | HOSTILE | {"HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ray" not in done.stderr.lower()
    assert (tmp_path / "out.jsonl").read_text().startswith('{"id": null')
