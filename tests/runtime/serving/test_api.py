"""The HTTP interface without Ray: answers, limits, token, problems."""

import asyncio
import base64
import json
import threading
import tracemalloc

import pytest
from picture_files import picture_file
from pydantic import ValidationError
from starlette.requests import Request
from starlette.testclient import TestClient

from hvpnet_runtime import Rejection, Tweet
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.preprocessing.prepare import Preparer
from hvpnet_runtime.serving.admission import Admission
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.errors import OverloadedError
from hvpnet_runtime.serving.messages import ExtractRequest, read_request, request_model
from hvpnet_runtime.serving.preparation import Preparation
from hvpnet_runtime.serving.settings import ServiceLimits

URL = "/v1/extract"


def base64_picture(width=40, height=30):
    return base64.b64encode(picture_file(size=(width, height))).decode()


def refused(response, status, name, match):
    """An RFC 9457 problem of this status, named after the exception; one line says what is wrong."""
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"]) == (status, status)
    assert (problem["title"], problem["type"]) == (name, f"urn:hvpnet:error:{name}")
    assert match in problem["detail"]
    assert "\n" not in problem["detail"]
    return problem


@pytest.mark.parametrize("task", ["ner", "re"])
def test_answers_are_the_librarys(client, drawn_tweets, answers, as_json, as_parts, close_to, task):
    tweets = drawn_tweets[task][:4]
    expected = {"bundle": task, "results": answers(task, tweets)}
    found = client.post(URL, json={"bundle": task, "tweets": [as_json(tweet) for tweet in tweets]})
    assert found.status_code == 200
    assert close_to(found.json(), expected)
    assert client.post(URL, files=as_parts(task, tweets)).json() == found.json()


def test_text_boxes_and_id(client, answers):
    tweet = {"id": "a", "text": "Jordan was great today", "image": base64_picture(), "boxes": [[0, 0, 20, 30]]}
    (found,) = client.post(URL, json={"tweets": [tweet]}).json()["results"]
    assert found["id"] == "a"
    assert len(found["tags"]) == 4
    boxed = client.post(URL, json={"tweets": [tweet | {"boxes": [[0, 0, 21, 30]]}]}).json()["results"][0]
    assert boxed["tags"] == found["tags"]  # the picture is of one colour


def test_default_bundle_is_the_first(client):
    assert client.post(URL, json={"tweets": [{"text": "Jordan"}]}).json()["bundle"] == "ner"


TWEET = {"text": "Jordan was great"}
PAIR = {"words": ["Jordan", "visits", "Paris"], "head": [0, 1], "tail": [2, 3]}


@pytest.mark.parametrize(
    ("tweet", "name", "match"),
    [
        ({}, "InputError", "needs its text or its words"),
        (TWEET | {"words": ["Jordan"]}, "InputError", "not both"),
        ({"text": ""}, "TextError", "empty"),
        ({"text": "x" * 401}, "TextError", "401 characters, the limit is 400"),
        ({"words": ["x" * 200, "y" * 200]}, "TextError", "401 characters, the limit is 400"),
        (TWEET | {"image": "a.jpg"}, "PictureError", "base64"),
        (TWEET | {"image": "/etc/passwd1"}, "PictureError", "not an image file"),
        (TWEET | {"image": "http://127.0.0.1/a.jpg"}, "PictureError", "base64"),
        (TWEET | {"image": "data:image/png;base64,AAAA"}, "PictureError", "base64"),
        (TWEET | {"image": ""}, "PictureError", "empty"),
        (TWEET | {"objects": [base64.b64encode(picture_file()[:60]).decode()]}, "PictureError", "truncated"),
        (TWEET | {"image": base64_picture(1001, 1000)}, "PictureError", "too many pixels: 1001 x 1000"),
        (TWEET | {"boxes": [[0, 0, 1, 1]]}, "InputError", "boxes need the image"),
        (TWEET | {"image": base64_picture(), "boxes": [[0, 0, 99, 1]]}, "PictureError", "outside the picture"),
    ],
)
def test_a_bad_tweet_is_named(client, tweet, name, match):
    problem = refused(client.post(URL, json={"tweets": [TWEET, tweet]}), 422, name, match)
    assert [(error["row"], error["error"]["type"]) for error in problem["errors"]] == [(1, name)]


def test_all_bad_tweets_are_named(client):
    body = {"bundle": "re", "tweets": [PAIR, PAIR | {"head": [1, 1]}, PAIR | {"image": base64_picture(2000, 1000)}]}
    problem = refused(client.post(URL, json=body), 422, "InputError", "tweet 1: ")
    assert [(error["row"], error["error"]["type"]) for error in problem["errors"]] == [
        (1, "TextError"),
        (2, "PictureError"),
    ]


@pytest.mark.parametrize(
    ("body", "status", "name", "match"),
    [
        (b"", 400, "RequestError", "Invalid JSON"),
        (b"{", 400, "RequestError", "Invalid JSON"),
        (b"\xff\xfe", 400, "RequestError", "Invalid JSON"),
        (b'{"tweets": [{"text": "\\ud800"}]}', 400, "RequestError", "hex escape"),
        (b"[" * 100_000, 400, "RequestError", "recursion"),
        (b"[]", 422, "InputError", "the request"),
        (b"{}", 422, "InputError", "tweets: Field required"),
        (b'{"tweets": []}', 422, "InputError", "at least 1"),
        (b'{"tweets": [{"text": 5}]}', 422, "InputError", "tweets.0.text"),
        (b'{"tweets": [{"text": "a", "url": "b"}]}', 422, "InputError", "tweets.0: the key 'url' is not known"),
        (b'{"tweets": [{"text": "a", "head": [0, 1, 2]}]}', 422, "InputError", "tweets.0.head"),
        (b'{"tweets": [{"text": "a", "boxes": [[0, 0, NaN, 1]]}]}', 422, "InputError", "finite"),
        (b'{"tweets": [{"text": "a"}], "bundle": "x"}', 404, "UnknownBundleError", "only ner, re"),
        (json.dumps({"tweets": [TWEET] * 5}).encode(), 422, "InputError", "tweets: List should have at most 4 items"),
        (
            json.dumps({"tweets": [{"words": ["a"] * 401}]}).encode(),
            422,
            "InputError",
            "at most 400 items",
        ),
        (json.dumps({"tweets": [{"text": "a", "objects": [""] * 65}]}).encode(), 422, "InputError", "at most 64 items"),
    ],
)
def test_a_bad_request_is_named(client, body, status, name, match):
    response = client.post(URL, content=body, headers={"content-type": "application/json"})
    assert "errors" not in refused(response, status, name, match)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types(client, kind):
    response = client.post(URL, content=b"{}", headers={"content-type": kind})
    refused(response, 415, "MediaTypeError", "application/json or multipart/form-data")


@pytest.mark.parametrize(
    ("files", "status", "name", "match"),
    [
        ({"other": (None, "{}")}, 400, "RequestError", "no part 'request'"),
        ({"request": (None, "{")}, 400, "RequestError", "Invalid JSON"),
        ([("request", (None, "{}")), ("a", ("a", b"")), ("a", ("a", b""))], 400, "RequestError", "have one name"),
        ([("request", (None, "{}")), ("request", ("a", b"{}"))], 400, "RequestError", "have one name"),
        ({"request": (None, '{"tweets": [{"text": "a", "image": "b"}]}')}, 422, "PictureError", "no file part"),
        ({"request": (None, '{"tweets": [{"text": "a", "image": "request"}]}')}, 422, "PictureError", "no file part"),
    ],
)
def test_bad_multipart(client, files, status, name, match):
    refused(client.post(URL, files=files), status, name, match)


def test_parts_are_limited_by_tweets_alone():
    """The parser would take 1,000."""
    tweets = [{"text": "a", "objects": [f"{tweet} {crop}" for crop in range(64)]} for tweet in range(20)]
    parts = {"request": json.dumps({"tweets": tweets})} | {name: "" for tweet in tweets for name in tweet["objects"]}
    body = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n{part}\r\n'
        for name, part in parts.items()
    )

    async def receive():
        return {"type": "http.request", "body": f"{body}--b--\r\n".encode()}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    request = Request({"type": "http", "headers": headers}, receive)
    found, pictures = asyncio.run(read_request(request, ExtractRequest, ServiceLimits(tweets=20), lambda _: None))
    assert len(found.tweets) == 20
    assert pictures("19 63") == b""


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=a"])
def test_multipart_that_is_none(client, kind):
    response = client.post(URL, content=b"--b\r\n\r\nx\r\n--b--", headers={"content-type": kind})
    refused(response, 400, "RequestError", "multipart/form-data")


def test_headers_of_parts_are_short(client):
    """Each takes time in proportion to its length, and a body has room for two thousand."""
    part = b'--a\r\nContent-Disposition: form-data; name="x"' + 20 * b";" + b"\r\n\r\nx\r\n"
    response = client.post(
        URL, content=part + b"--a--\r\n", headers={"content-type": "multipart/form-data; boundary=a"}
    )
    refused(response, 400, "RequestError", "a header of a part has more than 16 parameters")


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=a", "application/json"])
@pytest.mark.parametrize("charset", ["punycode", "zlib_codec", "utf-7", "utf-16", "latin-1", ""])
def test_other_charsets(client, kind, charset):
    """Python's decoder of punycode takes the square of what it reads: a megabyte would stop everything for a minute."""
    content = b'--a\r\nContent-Disposition: form-data; name="request"\r\n\r\n' + b"a-" * 100_000 + b"\r\n--a--\r\n"
    response = client.post(URL, content=content, headers={"content-type": f"{kind}; charset={charset}"})
    refused(response, 415, "MediaTypeError", "the charset must be utf-8")
    accepted = client.post(URL, json={"tweets": [TWEET]}, headers={"content-type": "application/json; charset=UTF-8"})
    assert accepted.status_code == 200


def test_the_json_may_be_a_file_part(client):
    files = {
        "request": ("request.json", '{"tweets": [{"text": "Jordan", "image": "a"}]}'),
        "a": ("a.png", picture_file()),
    }
    assert client.post(URL, files=files).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_large_bodies(client, declared):
    sent = []

    def chunks():
        for _ in range(400):
            sent.append(1000)
            yield b" " * 1000

    body = b" " * 400_000 if declared else chunks()
    response = client.post(URL, content=body, headers={"content-type": "application/json"})
    refused(response, 413, "BodyTooLargeError", "more than 300000 bytes")


MANY = 100_000


@pytest.mark.parametrize(
    "tweets",
    [
        "{}," * MANY + "{}",
        "1," * MANY + "1",
        '{"text": "a", "objects": [' + "1," * MANY + "1]}",
        '{"words": [' + "1," * MANY + "1]}",
        '{"text": "a", "boxes": [' + "[]," * MANY + "[]]}",
        "{" + ",".join(f'"{name}":1' for name in range(MANY)) + "}",
    ],
)
def test_many_small_values(settings, extractor, tweets, metrics):
    """They are refused before each of them costs memory; and of a list, only the first mistake is kept."""
    api = create_api(with_limits(settings, body_bytes=4_000_000), extractor, metrics)
    body = f'{{"tweets": [{tweets}]}}'.encode()
    with TestClient(api) as client:
        client.post(URL, json={"tweets": [TWEET]})  # so that what is made once is there
        tracemalloc.start()
        response = client.post(URL, content=body, headers={"content-type": "application/json"})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    refused(response, 422, "InputError", "more values than 4 tweets can have")
    assert peak < 16 * len(body)


@pytest.mark.parametrize(
    ("tweets", "place"),
    [
        ("[" + "1," * MANY + "1]", ("tweets", 0)),
        ('[{"objects": [' + "1," * 60 + "1]}]", ("tweets", 0, "objects", 0)),
        ('[{"boxes": [' + "1," * 60 + "1]}]", ("tweets", 0, "boxes", 0)),
        ('[{"words": [' + "1," * 4000 + "1]}]", ("tweets", 0, "words", 0)),
        ("[{" + ",".join(f'"{name}":1' for name in range(MANY)) + "}]", ("tweets", 0)),
    ],
)
def test_a_request_has_one_mistake(tweets, place):
    with pytest.raises(ValidationError) as caught:
        request_model(ServiceLimits(), ExtractRequest).model_validate_json(f'{{"tweets": {tweets}}}')
    (error,) = caught.value.errors()
    assert error["loc"] == place


def asgi_post(api, receive, headers=()):
    """The messages that the application sends for a request whose body comes from `receive`."""
    return asyncio.run(asyncio.wait_for(asgi_request(api, receive, headers), 30))


async def asgi_request(api, receive, headers=(), method="POST", path=URL):
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    sent = []

    async def send(message):
        sent.append(message)

    await api(scope, receive, send)
    return sent


def test_reading_stops_at_four_times_the_limit(client):
    received = 0

    async def endless():
        nonlocal received
        received += 50_000
        return {"type": "http.request", "body": bytes(50_000), "more_body": True}

    sent = asgi_post(client.app, endless)
    assert sent[0]["status"] == 413
    assert 5 * 300_000 <= received <= 5 * 300_000 + 2 * 50_000


def test_slow_bodies(client):
    waits = 0

    async def stalling():
        nonlocal waits
        waits += 1
        await asyncio.sleep(20)

    sent = asgi_post(client.app, stalling)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["title"] == "RequestTimeoutError"
    assert waits == 1  # the rest is not waited for as well


def test_a_refusal_does_not_wait_for_a_silent_client(settings, extractor, metrics):
    """It would hold a place in the service for as long, without a token."""
    api = create_api(with_limits(settings, body_seconds=3600), extractor, metrics, token="secret")

    async def silent():
        await asyncio.sleep(3600)

    assert asgi_post(api, silent)[0]["status"] == 401


def test_a_client_that_hangs_up(client):
    async def gone():
        return {"type": "http.disconnect"}

    assert asgi_post(client.app, gone)[0]["status"] == 400


class Stuck:
    """An extractor that is busy until it is released."""

    def __init__(self, extractor):
        self.extractor = extractor
        self.entered, self.release = threading.Event(), threading.Event()

    async def extract(self, bundle, tweets):
        self.entered.set()
        await asyncio.to_thread(self.release.wait)
        return await self.extractor.extract(bundle, tweets)


@pytest.mark.parametrize("early", [True, False])
def test_a_full_queue(settings, extractor, early, metrics):
    """Four tweets are waiting, which is the limit: one more is refused before its body is read, and read it is."""
    stuck = Stuck(extractor)
    with TestClient(create_api(settings, stuck, metrics)) as client:
        waiting = 4 if early else 3
        first = {}
        body = {"tweets": [TWEET] * waiting}
        thread = threading.Thread(target=lambda: first.update(response=client.post(URL, json=body)))
        thread.start()
        assert stuck.entered.wait(30)
        response = client.post(URL, json={"tweets": [TWEET] * 2})
        refused(response, 429, "OverloadedError", f"{waiting} tweets are waiting, the limit is 4")
        assert response.headers["retry-after"] == "7"
        stuck.release.set()
        thread.join()
        assert first["response"].status_code == 200
        assert client.post(URL, json={"tweets": [TWEET] * 4}).status_code == 200


def test_a_service_that_stops(settings, extractor, metrics):
    """What is in hand is answered; what comes then is refused before its body is read, and the probe says so."""
    admission = Admission(settings.limits)

    async def scenario():
        stuck = Stuck(extractor)

        async def body():
            return {"type": "http.request", "body": json.dumps({"tweets": [TWEET]}).encode(), "more_body": False}

        async def get_ready():
            sent = await asgi_request(api, once(body), method="GET", path="/readyz")
            return sent[0]["status"], json.loads(sent[1]["body"])

        api = create_api(settings, stuck, metrics, admission=admission)
        accepted = asyncio.create_task(asgi_request(api, once(body)))
        await asyncio.to_thread(stuck.entered.wait)
        in_hand = [admission.close()]
        late, ready = await asgi_request(api, once(body)), await get_ready()
        stuck.release.set()
        answer = await accepted
        return late, ready, [*in_hand, admission.close()], answer

    late, ready, in_hand, accepted = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert (late[0]["status"], dict(late[0]["headers"])[b"retry-after"]) == (503, b"7")
    assert json.loads(late[1]["body"])["title"] == "UnavailableError"
    assert ready == (503, {"status": "stopping"})
    assert (in_hand, accepted[0]["status"]) == ([1, 0], 200)


def with_limits(settings, **limits):
    return settings.model_copy(update={"limits": settings.limits.model_copy(update=limits)})


def test_bodies_that_trickle_in_lock_nobody_out(settings, extractor, metrics):
    """Ten requests whose bodies are on their way take no place in a queue of four."""
    api = create_api(with_limits(settings, body_seconds=60), extractor, metrics)

    async def scenario():
        reading, hang_up = asyncio.Semaphore(0), asyncio.Event()

        async def stalling():
            reading.release()
            await hang_up.wait()
            return {"type": "http.disconnect"}

        async def whole():
            return {"type": "http.request", "body": json.dumps({"tweets": [TWEET]}).encode(), "more_body": False}

        slow = [asyncio.create_task(asgi_request(api, stalling)) for _ in range(10)]
        for _ in slow:
            await reading.acquire()
        answer = await asgi_request(api, once(whole))
        hang_up.set()
        await asyncio.gather(*slow)
        return answer

    answer = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert answer[0]["status"] == 200


def once(receive):
    """Receives the body, and then waits, as long as the client neither sends nor hangs up."""
    messages = iter([receive])

    async def then_wait():
        for message in messages:
            return await message()
        return await asyncio.Event().wait()

    return then_wait


class Slow:
    """Answers when it is told to, and says whether it was cancelled."""

    def __init__(self):
        self.begun, self.cancelled, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def extract(self, bundle, tweets):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.end.wait()  # what cannot be stopped at once
            raise


@pytest.mark.parametrize("hangs_up", [True, False])
def test_work_that_nobody_waits_for_is_cancelled(settings, metrics, hangs_up):
    """A deadline is a problem; the share of the queue comes back only when the work has stopped."""
    admission = Admission(settings.limits)
    api_settings = with_limits(settings, answer_seconds=60 if hangs_up else 0.05)

    async def scenario():
        slow, gone = Slow(), asyncio.Event()
        messages = [{"type": "http.request", "body": json.dumps({"tweets": [TWEET] * 4}).encode(), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        request = asyncio.create_task(
            asgi_request(create_api(api_settings, slow, metrics, admission=admission), receive)
        )
        await slow.begun.wait()
        if hangs_up:
            gone.set()
        answer = await request
        await slow.cancelled.wait()
        with pytest.raises(OverloadedError):
            admission.admit()
        slow.end.set()
        while admission.close():
            await asyncio.sleep(0)
        return answer

    answer = asyncio.run(asyncio.wait_for(scenario(), 60))
    if not hangs_up:
        assert answer[0]["status"] == 504
        problem = json.loads(answer[1]["body"])
        assert problem["title"] == "DeadlineError"
        assert problem["detail"] == "the answer took more than 0.05 seconds; send fewer tweets or smaller pictures"


def test_bytes_of_bodies_are_counted(settings, extractor, metrics):
    """Until a request is answered, its body counts."""
    stuck = Stuck(extractor)
    body = json.dumps({"tweets": [TWEET]}).encode() + b" " * 1000
    headers = {"content-type": "application/json"}
    api = create_api(with_limits(settings, queue_bytes=2 * len(body) - 1), stuck, metrics)
    with TestClient(api) as client:
        first = {}
        thread = threading.Thread(target=lambda: first.update(response=client.post(URL, content=body, headers=headers)))
        thread.start()
        assert stuck.entered.wait(30)
        response = client.post(URL, content=body, headers=headers)
        refused(response, 429, "OverloadedError", f"requests of {len(body)} bytes are waiting")
        assert response.headers["retry-after"] == "7"
        stuck.release.set()
        thread.join()
        assert first["response"].status_code == 200
        assert client.post(URL, content=body, headers=headers).status_code == 200


def test_a_failing_engine(settings, metrics):
    class Failing:
        async def extract(self, bundle, tweets):
            raise BackendError("onnxruntime-cpu answered with NaN")

    client = TestClient(create_api(settings, Failing(), metrics))
    refused(client.post(URL, json={"tweets": [TWEET]}), 500, "BackendError", "NaN")


def test_an_unknown_failure_says_nothing_of_the_inside(settings, metrics):
    class Failing:
        async def extract(self, bundle, tweets):
            raise KeyError("secret")

    client = TestClient(create_api(settings, Failing(), metrics), raise_server_exceptions=False)
    response = client.post(URL, json={"tweets": [TWEET]})
    refused(response, 500, "InternalError", "its log says why")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Basic right", 401),
        ("Bearer \u00e9", 401),
        ("Bearer right", 200),
        ("bearer right", 200),
    ],
)
def test_token(settings, extractor, authorization, status, metrics):
    client = TestClient(create_api(settings, extractor, metrics, token="right"))
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    response = client.post(URL, json={"tweets": [TWEET]}, headers=headers)
    assert response.status_code == status
    if status == 401:
        refused(response, 401, "TokenError", "bearer token")
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/readyz", 200), ("/docs", 200), ("/openapi.json", 200), ("/metrics", 401), ("/other", 401)],
)
def test_what_is_open_without_the_token(settings, extractor, path, status, metrics):
    assert TestClient(create_api(settings, extractor, metrics, token="right")).get(path).status_code == status


def test_probes(client, extractor, monkeypatch):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    monkeypatch.setattr(extractor._batchers["ner"], "failure", BackendError("lost"))
    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "waiting", "missing": ["ner"]})
    assert client.get("/healthz").status_code == 200


def test_metrics_are_plain_text(client):
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE hvpnet_tweets_total counter" in response.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", URL, 405)])
def test_unknown_routes_are_problems_too(client, method, path, status):
    response = client.request(method, path)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code == status


def test_a_fault_of_the_service_rejects_no_tweet(ner_bundle, metrics, monkeypatch):
    """It is raised, so that the log shows it and the client gets a 500."""
    preparation = Preparation("people", Preparer(Bundle.load(ner_bundle)), metrics)
    assert isinstance(preparation([Tweet(text="")])[0], Rejection)
    monkeypatch.setattr(Preparer, "__call__", None)
    with pytest.raises(TypeError):
        preparation([Tweet(text="Jordan")])


def test_description(client):
    operation = client.get("/openapi.json").json()["paths"][URL]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert operation["responses"]["422"]["content"] == operation["responses"]["500"]["content"] == problem
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["ExtractRequest"]["description"] == "Tweets for one bundle."
    assert schemas["ExtractRequest"]["properties"]["tweets"]["maxItems"] == 4
    assert schemas["TweetMessage"]["properties"]["objects"]["anyOf"][0]["maxItems"] == 64
