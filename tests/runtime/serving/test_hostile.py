"""Bodies and pictures that mean no good: each is answered, with a problem or a result, and nothing is left behind.

`HVPNET_HOSTILE_BODIES=10000 pytest tests/runtime/serving/test_hostile.py` sends as many instead of a few.
"""

import base64
import json
import os
import re
import socket
import struct
import zlib
from pathlib import Path

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from picture_files import picture_file
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from hvpnet_runtime.serving.api import create_api

pytestmark = pytest.mark.heavy

BODIES = int(os.environ.get("HVPNET_HOSTILE_BODIES", "300"))
SCHEMA_CASES = 40
ROOM = 64  # MiB: heaps breathe; one bomb that was kept would be 30, and a picture of the first one's size 10 000
BOUNDARY = "boundary"
PATIENCE = 60  # seconds until a connection counts as hung


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, *chunks):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join((chunk(b"IHDR", header), *chunks, chunk(b"IEND", b"")))


ZEROS = zlib.compress(bytes(30_000_000), 9)
BOMBS = (
    png(60_000, 60_000, chunk(b"IDAT", ZEROS)),  # more pixels than anyone may have
    png(900, 900, chunk(b"IDAT", ZEROS)),  # more data than its header says
    png(1, 900_000, chunk(b"IDAT", ZEROS)),  # few pixels, and a resize to as many as 256 x 230 million
    png(
        40, 30, chunk(b"zTXt", b"a\0\0" + ZEROS), chunk(b"IDAT", zlib.compress(bytes(30 * 121)))
    ),  # a bomb in a comment
    picture_file("GIF")[:6] + struct.pack("<HH", 65_535, 65_535) + picture_file("GIF")[10:],
    picture_file("BMP")[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + picture_file("BMP")[26:],
    b"P6 999999999 999999999 255\n",
    b"P6 " + b"9" * 5000,
)


@st.composite
def damaged(draw, valid):
    """Bytes that were cut off, changed in places, or repeated."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    data = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    return bytes(data) * draw(st.sampled_from((1, 1, 1, 2)))


files = st.sampled_from([picture_file(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")])
pictures = damaged(files) | st.sampled_from(BOMBS) | st.binary(max_size=100)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
spans = st.lists(st.integers(-2, 9), min_size=1, max_size=3)
words = st.lists(
    st.sampled_from(("Jordan", "was", "[SEP]", "<s>", "", " ", "\u200b", "\U0001f600", "x" * 900)), max_size=9
)
paths = st.sampled_from(
    ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:8000/metrics", "../a.jpg", "part", "\0")
)


def tweets(picture):
    fields = {
        "id": junk,
        "text": st.text(max_size=40) | junk,
        "words": words | junk,
        "image": picture | paths | junk,
        "objects": st.lists(picture | paths, max_size=4) | junk,
        "boxes": st.lists(st.lists(st.floats() | st.integers(-5, 50), max_size=5), max_size=3) | junk,
        "head": spans | junk,
        "tail": spans | junk,
        "surprise": junk,
    }
    return st.sets(st.sampled_from(sorted(fields)), max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


def requests(picture):
    tweet = st.just({"text": "Jordan was great"}) | tweets(picture)
    return st.fixed_dictionaries(
        {"tweets": st.lists(tweet, max_size=3) | junk}, optional={"bundle": st.sampled_from(("ner", "re")) | junk}
    )


def as_json(message):
    return json.dumps(message).encode()  # NaN included


@st.composite
def multipart(draw):
    parts = draw(st.dictionaries(st.sampled_from(("part", "other")), pictures, max_size=2))
    message = draw(requests(st.sampled_from(("part", "other", "third"))))
    lines = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="request"\r\n\r\n'.encode(),
        as_json(message),
        b"\r\n",
    ]
    for name, data in parts.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
        lines += [head.encode(), data, b"\r\n"]
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


JSON, MULTIPART = "application/json", f"multipart/form-data; boundary={BOUNDARY}"
json_bodies = requests(pictures.map(lambda data: base64.b64encode(data).decode())).map(as_json)
bodies = st.one_of(
    st.tuples(st.just(JSON), json_bodies),
    st.tuples(st.just(JSON), damaged(json_bodies)),
    st.tuples(st.just(JSON), junk.map(as_json)),
    st.tuples(st.just(JSON), st.binary(max_size=50)),
    st.tuples(st.just(MULTIPART), multipart()),
    st.tuples(st.just(MULTIPART), damaged(multipart())),
    st.tuples(st.sampled_from((JSON, MULTIPART, "text/plain", "multipart/form-data; boundary=\u00e9")), json_bodies),
)


def memory(service):
    """MiB that each process of the service holds, by id."""
    held = {}
    for pid, name in (service.processes() | {os.getpid(): "here"}).items():
        if name == "here" or name.startswith("ray::Serve"):
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("utf-8"))
            held[pid] = int(found[1]) // 1024
    return held


def answered(response):
    if response.status_code == 200:
        return bool(response.json()["results"])
    problem = response.json()
    return 400 <= response.status_code < 500 and problem["status"] == response.status_code and bool(problem["detail"])


def test_bodies_and_pictures(service, close_to):
    with httpx2.Client(timeout=PATIENCE) as client:
        valid = {"tweets": [{"text": "Jordan was great", "image": base64.b64encode(picture_file("PNG")).decode()}]}
        before = client.post(f"{service.url}/v1/extract", json=valid).json()

        @settings(max_examples=BODIES // 2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(body=bodies)
        def send(body):
            kind, content = body
            headers = {"content-type": kind.encode("latin-1")}
            assert answered(client.post(f"{service.url}/v1/extract", content=content, headers=headers))

        seed(1)(send)()  # warms up what is loaded late: image formats, for instance
        held = memory(service)
        for bomb in BOMBS * 5:
            tweet = {"text": "Jordan", "image": base64.b64encode(bomb).decode()}
            assert answered(client.post(f"{service.url}/v1/extract", json={"tweets": [tweet]}))
        seed(2)(send)()
        after = memory(service)
        assert after.keys() == held.keys()  # none of them died
        growth = {pid: after[pid] - held[pid] for pid in held}
        print(f"MiB before: {held}, growth: {growth}")
        assert max(growth.values()) < ROOM
        assert close_to(client.post(f"{service.url}/v1/extract", json=valid).json(), before)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST /v1/extract HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/extract HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/extract HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http(service, sent):
    port = int(service.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    assert httpx2.get(f"{service.url}/healthz").status_code == 200


def test_the_description_holds(request, extractor):
    api = create_api(request.getfixturevalue("settings"), extractor, request.getfixturevalue("metrics"))
    operation = schemathesis.openapi.from_asgi("/openapi.json", api)["/v1/extract"]["POST"]

    @settings(max_examples=SCHEMA_CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def call(case):
        case.call_and_validate(checks=[not_a_server_error, response_schema_conformance, status_code_conformance])

    call()
