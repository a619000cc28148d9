"""Connections that mean no good: each is closed in time, says why where it can, and locks nobody else out."""

import json
import socket
import threading
from contextlib import contextmanager
from queue import SimpleQueue

import httpx2
import pytest
import uvicorn
from waiting import eventually

from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.connections import limited
from hvpnet_runtime.serving.server import local_service
from hvpnet_runtime.serving.settings import Connections

PATIENCE = 60
BODY = json.dumps({"tweets": [{"text": "Jordan"}]}).encode()
POST = b"POST /v1/extract HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def serve(ner_bundle, free_port):
    def start(**limits):
        values = {"bundles": {"ner": ner_bundle}, "threads": 1, "connections": limits}
        return local_service(Settings.parse(values), "127.0.0.1", free_port(), SimpleQueue())

    return start


@pytest.fixture(scope="module")
def url(serve):
    """A service that waits a fifth of a second for headers."""
    with serve(header_seconds=0.2) as url:
        yield url


def connect(url):
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE)


def read(connection):
    """All that comes until the other end closes."""
    received = b""
    try:
        while more := connection.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


def problem(received):
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)["detail"]


def test_a_connection_without_a_byte_is_closed_in_silence(url):
    with connect(url) as connection:
        assert read(connection) == b""


@pytest.mark.parametrize("sent", [b"GET /healthz HTTP/1.1\r\nHos", POST + b"X-Slow: 1"])
def test_headers_that_do_not_arrive(url, sent):
    with connect(url) as connection:
        connection.sendall(sent)
        assert problem(read(connection)) == (408, "the headers did not arrive within 0.2 seconds")


def test_the_next_headers_have_to_arrive_too(url):
    with connect(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHos")
        assert problem(read(connection)) == (408, "the headers did not arrive within 0.2 seconds")


def pour(connection, head, piece):
    """Send on until the other end has had enough; what it said."""
    sent = len(head)
    try:
        connection.sendall(head)
        while sent < 50_000_000:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < 10_000_000  # what fits the buffers of the two sockets is on its way before anybody reads
    return read(connection)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET /", b"a" * 10_000),
        (POST, b"X-More: 1\r\n" * 1_000),
        (POST + b"X-Long: ", b"a" * 10_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 10_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1;abcdefghijklmnopqrstuvwxyz\r\n \r\n" * 1_000),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X-More: 1\r\n" * 1_000),
    ],
    ids=["path", "headers", "header", "extension", "extensions", "trailers"],
)
def test_what_is_no_body_has_an_end(url, head, piece):
    with connect(url) as connection:
        answer = pour(connection, head, piece)
    if answer and b"Transfer-Encoding" not in head:  # otherwise an answer may be on its way already
        assert answer.split()[1] in (b"431", b"400")
    assert httpx2.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200


def test_requests_that_are_sent_ahead(url):
    """Some are answered in order; thousands would all be kept, so they close the connection."""
    ahead = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    post = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connect(url) as connection:
        connection.sendall(post + 9 * ahead + last)
        assert read(connection).count(b"HTTP/1.1 200 OK") == 11
    with connect(url) as connection:
        connection.sendall(post + 2_000 * ahead)
        assert read(connection).count(b"HTTP/1.1 200 OK") < 2_000
    assert httpx2.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200


def test_an_offer_of_http_2_is_declined(url):
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nupgrade: h2c\r\n"
    with connect(url) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert b"HTTP/1.1 200 OK" in connection.recv(65536)


def test_small_chunks_are_no_attack(url):
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    with connect(url) as connection:
        head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + chunks + b"0\r\n\r\n")
        assert b"200 OK" in read(connection)


def test_a_client_has_so_many_connections(serve):
    with serve(per_client=3, most=5, header_seconds=PATIENCE) as url:
        held = [connect(url) for _ in range(3)]
        with connect(url) as connection:
            answer = read(connection)
        assert problem(answer) == (503, "too many connections are open; try again later")
        assert b"retry-after: 1" in answer
        held.pop().close()
        assert eventually(lambda: responds(url))
        for each in held:
            each.close()
        assert eventually(lambda: responds(url))


def responds(url):
    try:
        return httpx2.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
    except httpx2.TransportError:
        return False


def test_all_clients_have_so_many_connections(serve):
    with serve(per_client=9, most=3, header_seconds=PATIENCE) as url:
        held = [connect(url) for _ in range(3)]
        with connect(url) as connection:
            assert problem(read(connection))[0] == 503
        for each in held:
            each.close()
        assert eventually(lambda: responds(url))


def test_no_redirect_goes_where_the_client_says(url):
    response = httpx2.get(f"{url}/healthz/", headers={"host": "evil.example"}, timeout=PATIENCE)
    assert response.status_code == 404
    assert "location" not in response.headers


def test_a_bundle_that_nobody_has_is_not_echoed(url):
    response = httpx2.post(f"{url}/v1/extract", json={"bundle": "x" * 4_000_000, "tweets": [{"text": "a"}]})
    assert response.status_code == 404
    assert len(response.content) < 500


@contextmanager
def serving(app, port):
    """An application behind the service's protocol."""
    protocol = limited(Connections(), retry_after_seconds=1)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, http=protocol, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def test_answers_that_nobody_reads(free_port, monkeypatch):
    """The connection is closed, and what answers goes on at once, with nobody there any more."""
    monkeypatch.setattr("hvpnet_runtime.serving.connections._UNREAD_SECONDS", 0.2)
    ended = threading.Event()

    async def endless(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        ended.set()

    with serving(endless, free_port()) as url, connect(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ended.wait(PATIENCE)
        assert len(read(connection)) < 64 * 2**20


def test_who_hangs_up_with_requests_behind_is_gone(free_port):
    """The request that is being answered learns of it, though others that came after it were the last to be read."""
    told: SimpleQueue[str] = SimpleQueue()
    came = threading.Event()

    async def patient(_scope, receive, _send):
        await receive()
        came.set()
        told.put((await receive())["type"])

    with serving(patient, free_port()) as url:
        with connect(url) as connection:
            connection.sendall(2 * b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert came.wait(PATIENCE)
        assert told.get(timeout=PATIENCE) == "http.disconnect"
