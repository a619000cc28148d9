"""The clients against the service in this process, and against answers that no service of ours gives."""

import asyncio
import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import httpx2
import numpy as np
import pytest
from picture_files import picture_file
from PIL import Image

from hvpnet import (
    AsyncClient,
    Client,
    InputError,
    PictureError,
    Pipeline,
    Rejection,
    ServiceError,
    TextError,
    Tweet,
    UnreachableError,
)
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.errors import (
    BodyTooLargeError,
    DeadlineError,
    InternalError,
    OverloadedError,
    TokenError,
    UnavailableError,
    UnknownBundleError,
)

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[3]
URL = "http://service"
GOOD = Tweet(text="Jordan was great")
LIMITS = {"bundles": [], "limits": {"tweets": 4, "body_bytes": 300_000}}
RESULT = {"id": None, "entities": [], "tags": ["O"], "cut_words": 0}


class Recorded(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Passes requests on, and keeps them."""

    def __init__(self, transport):
        self.transport, self.requests = transport, []

    def handle_request(self, request):
        self.requests.append((request.url.path, request.read()))
        return self.transport.handle_request(request)

    async def handle_async_request(self, request):
        self.requests.append((request.url.path, await request.aread()))
        return await self.transport.handle_async_request(request)

    @property
    def bodies(self):
        return [body for path, body in self.requests if path == "/v1/extract"]


class Synchronous:
    """A `Client`, used as a test wants it."""

    def __init__(self, transport, **arguments):
        self.transport = Recorded(transport)
        self.client = Client(URL, transport=self.transport, **arguments)

    def extract(self, tweets):
        with self.client:
            return self.client.extract(tweets)

    def stream(self, tweets, most=None):
        with self.client:
            outcomes = self.client.stream(tweets)
            return [outcome for outcome, _ in zip(outcomes, count() if most is None else range(most), strict=False)]


class Asynchronous:
    """An `AsyncClient`, used in the same way."""

    def __init__(self, transport, **arguments):
        self.transport = Recorded(transport)
        self.client = AsyncClient(URL, transport=self.transport, **arguments)

    def extract(self, tweets):
        async def run():
            async with self.client:
                return await self.client.extract(tweets)

        return asyncio.run(run())

    def stream(self, tweets, most=None):
        async def run():
            async with self.client:
                outcomes = []
                async for outcome in self.client.stream(tweets):
                    outcomes.append(outcome)
                    if len(outcomes) == most:
                        break
                return outcomes

        return asyncio.run(run())


@pytest.fixture(params=[Synchronous, Asynchronous])
def kind(request):
    return request.param


@pytest.fixture
def served(kind, client):
    """Makes a client of the service in this process."""

    def make(app=None, **arguments):
        if kind is Asynchronous:
            return kind(httpx2.ASGITransport(app or client.app), **arguments)
        if app is not None:
            client.__init__(app, raise_server_exceptions=False)
        return kind(client._transport, **arguments)

    return make


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that a client waits, without waiting."""
    seconds = []

    async def sleep(given):
        seconds.append(given)

    monkeypatch.setattr("hvpnet_runtime.client.synchronous.time.sleep", seconds.append)
    monkeypatch.setattr("hvpnet_runtime.client.asynchronous.anyio.sleep", sleep)
    return seconds


def answering(*responses):
    """A service that gives these answers to what is asked of it, one after the other; the last of them for ever.

    An exception stands for a connection that fails.
    """
    left = list(responses)

    def handle(request):
        if request.url.path == "/v1/service":
            return httpx2.Response(200, json=LIMITS)
        response = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(response, Exception):
            raise response
        return httpx2.Response(response.status_code, headers=response.headers, content=response.content)

    return httpx2.MockTransport(handle)


def problem(status, title, detail="the detail", errors=(), **headers):
    members = {"type": f"urn:hvpnet:error:{title}", "title": title, "status": status, "detail": detail}
    if errors:
        members["errors"] = errors
    return httpx2.Response(status, json=members, headers=headers)


ANSWER = httpx2.Response(200, json={"bundle": "ner", "results": [RESULT]})


@pytest.mark.parametrize("task", ["ner", "re"])
def test_answers_are_the_librarys(served, drawn_tweets, answers, close_to, task):
    """24 tweets in requests of 4."""
    asked = served(bundle=task)
    results = asked.extract(drawn_tweets[task])
    assert close_to(json.loads(json.dumps([each.to_dict() for each in results])), answers(task, drawn_tweets[task]))
    assert len(asked.transport.bodies) == 6


@pytest.mark.parametrize("task", ["ner", "re"])
def test_results_equal_a_pipelines(served, settings, drawn_tweets, task):
    """To the last digit, as long as what is run together is the same; ids are whatever the tweet has."""
    tweet = Tweet(**(vars(drawn_tweets[task][0]) | {"id": ("anything", 1.5)}))
    with Pipeline.load(settings.bundles[task], window=True) as pipeline:
        expected = pipeline([tweet])
    assert served(bundle=task).extract([tweet]) == expected


def test_pictures_are_sent_whatever_they_are(served, settings, tmp_path):
    """Paths stay here, and a picture travels once."""
    file = tmp_path / "secret-folder.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    kinds = [file, str(file), file.read_bytes(), Image.fromarray(pixels).convert("RGBA"), pixels]
    tweets = [Tweet(text="Jordan was great", image=each, objects=[each]) for each in kinds[:4]]
    boxed = Tweet(text="Jordan was great", image=pixels, boxes=np.array([[0, 0, 60, 40]]))
    asked = served()
    first, *others = asked.extract([*tweets, boxed])
    assert all(other.tags == first.tags for other in others)
    for other in others:
        assert [each.score for each in other.entities] == pytest.approx([each.score for each in first.entities])
    together, alone = asked.transport.bodies
    assert b"secret" not in together + alone
    assert together.count(file.read_bytes()) == 1
    assert together.count(b"Content-Type: application/octet-stream") == 2  # the file, and the image as PNG
    with Pipeline.load(settings.bundles["ner"], window=True) as pipeline:
        assert pipeline([Tweet(text="Jordan was great", image=file, objects=[file])])[0].tags == first.tags


BAD = [
    (Tweet(text=""), "TextError", "empty"),
    (Tweet(text="x" * 401), "TextError", "401 characters"),
    (Tweet(text="a", image=b"none"), "PictureError", "not an image file"),
    (Tweet(text="a", image="/nowhere/a.jpg"), "PictureError", "picture /nowhere/a.jpg cannot be opened"),
    (Tweet(text="a", image=np.zeros((2, 2), np.uint8)), "PictureError", "must be RGB"),
    (Tweet(text="a", image=picture_file(), boxes=[(0, 0, float("nan"), 1)]), "PictureError", "four finite numbers"),
    (Tweet(text="a", image=picture_file(), boxes=["0123"]), "PictureError", "four finite numbers"),
    (Tweet(text="a", image=picture_file(), boxes=[{0, 1, 2, 3}]), "PictureError", "four finite numbers"),
    (Tweet(text="a", image=picture_file(), boxes=[("0", 0, 1, 1)]), "PictureError", "four finite numbers"),
    (Tweet(text="a", image=picture_file(), boxes=[(0, 0, 999, 1)]), "PictureError", "outside the picture"),
    (Tweet(text="a", objects="one.jpg"), "InputError", "objects must be a list"),
    (Tweet(text="a", objects=[picture_file()] * 65), "InputError", "at most 64"),
    (Tweet(text=5), "TextError", "a string, not int"),
    (Tweet(text="\ud800"), "TextError", "surrogate"),
    (Tweet(text="a", head=(0,)), "TextError", "head must be"),
    (Tweet(), "InputError", "needs its text or its words"),
    ("text", "InputError", "must be a Tweet, not str"),
]


def test_stream_rejects_bad_tweets_and_answers_the_rest(served):
    """Three good ones around each bad one, so that requests of four have one each at another place."""
    tweets = [tweet for bad, _, _ in BAD for tweet in (GOOD, bad, GOOD, GOOD, GOOD)]
    outcomes = served().stream(tweets)
    assert len(outcomes) == len(tweets)
    for row, outcome in enumerate(outcomes):
        bad, place = divmod(row, 5)
        if place != 1:
            assert outcome.tags == outcomes[0].tags
            assert len(outcome.tags) == 3
            continue
        _, name, message = BAD[bad]
        assert isinstance(outcome, Rejection), BAD[bad]
        assert (outcome.row, outcome.type) == (row, name)
        assert message in outcome.message


def test_rejections_equal_a_pipelines(served, settings):
    tweets = [GOOD, Tweet(text="", id=[7]), Tweet(text="a", image=b"none", id={"of": "a"}), GOOD]
    with Pipeline.load(settings.bundles["ner"], window=True) as pipeline:
        expected = list(pipeline.stream(tweets))
    outcomes = served().stream(tweets)
    assert [each for each in outcomes if isinstance(each, Rejection)] == expected[1:3]
    assert [each.id for each in outcomes] == [None, [7], {"of": "a"}, None]


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (Tweet(text=""), TextError, r"^tweet 5: the text is empty"),
        (Tweet(text="a", image=b"none", id="x"), PictureError, r"^tweet 5 \(id 'x'\): picture <bytes> is not an image"),
        (Tweet(text="a", image="/nowhere"), PictureError, r"^tweet 5: picture /nowhere cannot be opened"),
    ],
)
def test_extract_raises_the_librarys_error(served, bad, error, match):
    with pytest.raises(error, match=match):
        served().extract([*[GOOD] * 5, bad, *[GOOD] * 5])


def test_a_stream_is_read_lazily(served):
    """Two requests' tweets for five answers, of an endless series."""
    read = []

    def endless():
        for number in count():
            read.append(number)
            yield Tweet(text="Jordan was great", id=number)

    outcomes = served().stream(endless(), most=5)
    assert [outcome.id for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert len(read) <= 2 * 4 + 1


def test_an_async_client_reads_async_iterables(client):
    async def tweets():
        for number in range(6):
            yield Tweet(text="Jordan was great", id=number)

    outcomes = Asynchronous(httpx2.ASGITransport(client.app)).stream(tweets())
    assert [outcome.id for outcome in outcomes] == list(range(6))


def test_requests_stay_within_the_services_bytes(served):
    """The limit is 300,000: two pictures of 115,000 bytes fit into a request, one of 400,000 into none."""

    def noise(height):
        pixels = np.random.default_rng(height).integers(0, 256, (height, 320, 3), np.uint8)
        return Tweet(text="Jordan was great", image=pixels)

    asked = served()
    outcomes = asked.stream([noise(120), noise(121), noise(122), noise(420), noise(123)])
    assert [isinstance(outcome, Rejection) for outcome in outcomes] == [False, False, False, True, False]
    assert (outcomes[3].row, outcomes[3].type) == (3, "BodyTooLargeError")
    assert [2 * 115_000 < len(body) < 300_000 for body in asked.transport.bodies] == [True, True]
    with pytest.raises(BodyTooLargeError, match="tweet 0: the tweet is larger than a request of 300000 bytes"):
        served().extract([noise(420)])


def test_no_tweets_are_no_request(served):
    asked = served()
    assert asked.extract([]) == []
    assert not asked.transport.bodies


def test_token(kind, served, settings, extractor, metrics):
    app = create_api(settings, extractor, metrics, token="secret")
    assert len(served(app, token=" secret\n").extract([GOOD])[0].tags) == 3
    for token in (None, "wrong"):
        with pytest.raises(TokenError, match="wants a bearer token"):
            served(app, token=token).extract([GOOD])


def test_unknown_bundle(served):
    with pytest.raises(UnknownBundleError, match="no bundle 'x' is served, only ner, re"):
        served(bundle="x").extract([GOOD])


def test_retries_wait_as_long_as_they_are_told(kind, pauses):
    busy = [
        problem(429, "OverloadedError", **{"Retry-After": "3"}),
        problem(503, "UnavailableError", **{"Retry-After": "7"}),
        httpx2.Response(429, text="a proxy's"),
    ]
    asked = kind(answering(*busy, ANSWER))
    assert [result.tags for result in asked.extract([GOOD])] == [("O",)]
    assert pauses == [3, 7, 1]
    assert len(asked.transport.bodies) == 4
    assert len(set(asked.transport.bodies)) == 1


@pytest.mark.parametrize(
    ("arguments", "retry_after", "expected"),
    [
        ({"retries": 2}, "3", [3, 3]),
        ({"retries": 0}, "3", []),
        ({"retry_seconds": 10}, "4", [4, 4]),
        ({}, "3600", []),
        ({}, "1", [1] * 8),
    ],
)
def test_retries_are_bounded(kind, pauses, arguments, retry_after, expected):
    full = problem(429, "OverloadedError", "256 tweets are waiting", **{"Retry-After": retry_after})
    with pytest.raises(OverloadedError, match="256 tweets are waiting"):
        kind(answering(full), **arguments).extract([GOOD])
    assert pauses == expected


def test_what_takes_too_long_is_asked_for_in_halves(kind):
    late = problem(504, "DeadlineError", "no answer within 30 seconds")
    asked = kind(answering(late, ANSWER))
    assert [result.tags for result in asked.extract([GOOD, GOOD])] == [("O",)] * 2
    assert [len(json.loads(body)["tweets"]) for body in asked.transport.bodies] == [2, 1, 1]
    with pytest.raises(DeadlineError, match=r"^no answer within 30 seconds$"):
        kind(answering(late)).extract([GOOD])


@pytest.mark.parametrize("failure", [httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError])
def test_a_dropped_connection_is_made_anew_once(kind, pauses, failure):
    dropped, busy = failure("disconnected"), problem(429, "OverloadedError", **{"Retry-After": "3"})
    asked = kind(answering(dropped, busy, ANSWER), retries=1)
    assert [result.tags for result in asked.extract([GOOD])] == [("O",)]
    assert (pauses, len(asked.transport.bodies)) == ([3], 3)
    with pytest.raises(UnreachableError, match=r"^http://service cannot be reached \(disconnected\)"):
        kind(answering(dropped, dropped, ANSWER)).extract([GOOD])


@pytest.mark.parametrize(
    ("response", "error", "match"),
    [
        (problem(503, "UnavailableError", "stopping", **{"Retry-After": "99"}), UnavailableError, "^stopping$"),
        (httpx2.Response(503, headers={"Retry-After": "99"}), UnavailableError, "answers 503"),
        (problem(500, "InternalError", "its log says why"), InternalError, "^its log says why$"),
        (problem(500, "BackendError", "no GPU"), ServiceError.__base__, "^no GPU$"),
        (problem(404, "Not Found"), UnreachableError, "but with 404"),
        (problem(500, "NewError"), UnreachableError, "of this version"),
        (problem(422, "TweetsError"), UnreachableError, "of this version"),
        (
            httpx2.Response(404, text="<html>" + "x" * 10_000),
            UnreachableError,
            "with 404 '<html>x+.*x'; check the address",
        ),
        (httpx2.Response(200, text="fine"), UnreachableError, "with 200 'fine'; check the address"),
        (httpx2.Response(200, json={"results": []}), UnreachableError, "with 200"),
        (httpx2.Response(200, json={"results": [{}]}), UnreachableError, "with 200"),
        (httpx2.Response(200, json=[1]), UnreachableError, "with 200"),
        (problem(422, "TextError", errors=[{"row": 9}]), UnreachableError, "with 422"),
        (httpx2.Response(302, headers={"Location": "http://elsewhere/"}), UnreachableError, "with 302"),
    ],
)
def test_other_answers_are_typed_errors(kind, pauses, response, error, match):
    with pytest.raises(error, match=match) as raised:
        kind(answering(response)).extract([GOOD])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("failure", "match"),
    [
        (httpx2.ConnectError("refused"), r"^http://service cannot be reached \(refused\); check the address"),
        (httpx2.RemoteProtocolError(""), r"cannot be reached \(RemoteProtocolError\)"),
        (httpx2.ReadTimeout("x"), "^http://service did not answer within 5 seconds; .* give a longer timeout"),
    ],
)
def test_a_service_that_is_not_there(kind, failure, match):
    def handle(request):
        raise failure

    with pytest.raises(UnreachableError, match=match):
        kind(httpx2.MockTransport(handle), timeout=5).extract([GOOD])


@pytest.mark.parametrize("client_type", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"url": "127.0.0.1:8000"}, "begins with http:// or https://"),
        ({"url": "http://[::1"}, "is no url"),
        ({"url": URL, "token": "sécret"}, "^the token must be a string of ASCII characters$"),
        ({"url": URL, "token": "a\nb"}, "^the token must be"),
        ({"url": URL, "bundle": Path("bundle")}, "the bundle must be the name"),
        ({"url": URL, "timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"url": URL, "retries": 1.5}, "retries must be a whole number, at least 0, not 1.5"),
        ({"url": URL, "retries": -1}, "retries must be"),
        ({"url": URL, "retry_seconds": float("inf")}, "retry_seconds must be a number of seconds at least 0"),
    ],
)
def test_arguments_are_checked(client_type, arguments, match):
    with pytest.raises(InputError, match=match):
        client_type(**arguments)


@pytest.mark.parametrize("given", [GOOD, "text", {"text": "a"}, None])
def test_one_tweet_is_no_list(kind, given):
    with pytest.raises(InputError, match="give a list of Tweets"):
        kind(answering(ANSWER)).stream(given)


def run(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_needs_the_client_extra_alone():
    script = """
import sys
for name in ("torch", "torchvision", "transformers", "onnx", "pydantic", "ray", "fastapi", "starlette", "uvicorn"):
    sys.modules[name] = None  # an import of it fails
from hvpnet import AsyncClient, Client, ServiceError
print(Client("http://127.0.0.1:8000").__class__.__name__, "onnxruntime" in sys.modules)
"""
    assert run(script) == "Client False"


def test_says_which_extra_is_missing():
    script = """
import sys
sys.modules["httpx2"] = None
import hvpnet
from hvpnet_runtime import *
try:
    hvpnet.Client
except hvpnet.MissingExtraError as error:
    print(error)
"""
    assert run(script) == "the client of a service needs the package httpx2: pip install 'hvpnet[client]'"
