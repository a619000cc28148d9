"""Repositories in a real Triton server: answers as the pipeline's, over HTTP and gRPC, and errors of their own."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.triton import RepositoryOptions, write_repository

pytestmark = pytest.mark.heavy

LIMIT = 120  # seconds for an answer
MODELS = {"ner": "ner", "re": "re", "alone": "ner", "alone_re": "re"}
"""The task of every model of the server."""


@pytest.fixture(scope="module")
def bundles(ner_bundle: Path, re_bundle: Path) -> dict[str, Path]:
    return {"ner": ner_bundle, "re": re_bundle}


@pytest.fixture(scope="module")
def server(serve: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("repositories")
    for model, task in MODELS.items():
        form = "self-contained" if model.startswith("alone") else "onnxruntime"
        write_repository(Bundle.load(bundles[task]), root / model, RepositoryOptions(form, name=model))
    patient = root / "patient" / "patient" / "config.pbtxt"
    write_repository(
        Bundle.load(bundles["ner"]), root / "patient", RepositoryOptions("self-contained", name="patient", max_batch=4)
    )
    patient.write_text(patient.read_text().replace("microseconds: 0", f"microseconds: {LIMIT * 10**6}"))
    with serve(sorted(root.iterdir())) as running:
        yield running


def strings(rows: Sequence[Sequence[bytes]]) -> Any:
    return np.array([list(row) for row in rows], dtype=np.object_)


def tensors(client: Any, tweets: Sequence[Tweet]) -> list[Any]:
    """One request with a row for each tweet, as a client builds it."""
    keys = ("id", "text", "words", "head", "tail", "boxes")
    objects = [[Path(picture).read_bytes() for picture in tweet.objects or ()] for tweet in tweets]
    most = max(1, *map(len, objects))
    arrays = {
        "TWEET": strings([[json.dumps({key: getattr(tweet, key) for key in keys}).encode()] for tweet in tweets]),
        "IMAGE": strings([[b"" if tweet.image is None else Path(tweet.image).read_bytes()] for tweet in tweets]),
        "OBJECTS": strings([row + [b""] * (most - len(row)) for row in objects]),
    }
    inputs = []
    for name, array in arrays.items():
        inputs.append(client.InferInput(name, array.shape, "BYTES"))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def answers(result: Any) -> list[Any]:
    return [json.loads(row) for row in result.as_numpy("RESULT").ravel()]


def over_http(server: Any, model: str, tweets: Sequence[Tweet]) -> list[Any]:
    """Eight rows a request, one request after the other."""
    return [
        answer
        for start in range(0, len(tweets), 8)
        for answer in answers(server.http.infer(model, tensors(tritonclient.http, tweets[start : start + 8])))
    ]


def over_grpc(server: Any, model: str, tweets: Sequence[Tweet]) -> list[Any]:
    """One row a request, all at once."""
    arrived: SimpleQueue[Any] = SimpleQueue()
    for number, tweet in enumerate(tweets):
        server.grpc.async_infer(
            model,
            tensors(tritonclient.grpc, [tweet]),
            lambda result, error, number=number: arrived.put((number, error or answers(result)[0])),
            client_timeout=LIMIT,
        )
    found = dict(arrived.get(timeout=LIMIT) for _ in tweets)
    return [found[number] for number in range(len(tweets))]


@pytest.fixture(scope="module")
def assert_equal(assert_equal: Callable[..., None]) -> Callable[..., None]:
    """Batches of other sizes, and pictures computed in others."""
    return partial(assert_equal, atol=1e-4)


def pipeline_answers(bundle: Path, tweets: Sequence[Tweet]) -> list[Any]:
    """The pipeline's answers as JSON has them, or what it says is wrong with a tweet."""

    def answer(tweet: Tweet) -> Any:
        try:
            (result,) = pipeline.run([pipeline.prepare(tweet)])
        except InputError as error:
            return f"{type(error).__name__}: {error}"
        return json.loads(json.dumps(result.to_dict()))

    with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
        return [answer(tweet) for tweet in tweets]


@pytest.fixture(scope="module", params=["ner", "re"])
def case(
    request: pytest.FixtureRequest, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[Tweet], list[Any]]:
    """A task, the test split of picture-tweets, and the pipeline's answers."""
    data = write_picture_tweets(tmp_path_factory.mktemp("data") / request.param, request.param, Sizes(2, 2, 40))
    tweets = [example.tweet for example in load_split(data, "test").examples]
    return request.param, tweets, pipeline_answers(bundles[request.param], tweets)


@pytest.mark.parametrize("ask", [over_http, over_grpc])
@pytest.mark.parametrize("alone", [False, True], ids=["graphs", "self-contained"])
def test_picture_tweets(
    server: Any, case: Any, assert_equal: Any, ask: Callable[..., list[Any]], *, alone: bool
) -> None:
    task, tweets, expected = case
    (model,) = (name for name in MODELS if MODELS[name] == task and name.startswith("alone") == alone)
    assert_equal(ask(server, model, tweets), expected)


@pytest.mark.golden
@pytest.mark.parametrize("model", MODELS)
def test_real_tweets(
    server: Any, bundles: dict[str, Path], golden_tweets: Callable[..., Any], assert_equal: Any, model: str
) -> None:
    task = MODELS[model]
    tweets = golden_tweets(task)
    found = over_grpc(server, model, tweets)
    expected = pipeline_answers(bundles[task], tweets)
    assert len(found) == len(expected) == (7 if task == "ner" else 8)
    errors = [answer.message() for answer in found if isinstance(answer, InferenceServerException)]
    assert errors == [answer for answer in expected if isinstance(answer, str)]
    assert_equal(
        [answer for answer in found if isinstance(answer, dict)],
        [answer for answer in expected if isinstance(answer, dict)],
    )


def test_a_request_fails_alone_in_its_batch(
    server: Any, bundles: dict[str, Path], assert_equal: Any, tmp_path: Path
) -> None:
    """A model that waits until its batch is full: one execution, three answers and one error."""
    picture = tmp_path / "broken.jpg"
    picture.write_bytes(b"no picture")
    good = [Tweet(text=text) for text in ("Anna saw Rome", "Rome", "nobody was there today")]
    found = over_grpc(server, "patient", [good[0], Tweet(text="Rome", image=picture), *good[1:]])
    error = found.pop(1)
    assert isinstance(error, InferenceServerException)
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "PictureError: picture <bytes> is not an image file" in error.message()
    assert_equal(found, pipeline_answers(bundles["ner"], good))
    (statistics,) = server.grpc.get_inference_statistics("patient").model_stats
    assert (statistics.execution_count, statistics.inference_count) == (1, 4)


def test_only_the_tweet_is_required(server: Any, bundles: dict[str, Path], assert_equal: Any) -> None:
    for client, transport in ((tritonclient.http, server.http), (tritonclient.grpc, server.grpc)):
        tweet = client.InferInput("TWEET", [1, 1], "BYTES")
        tweet.set_data_from_numpy(strings([[b'{"text": "Anna saw Rome", "id": "\\ud800"}']]))
        found = answers(transport.infer("ner", [tweet]))
        assert found[0]["id"] == "\ud800"
        assert_equal(found, pipeline_answers(bundles["ner"], [Tweet(text="Anna saw Rome", id="\ud800")]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Anna saw Rome", "InputError: not JSON"),
        (b"\xff", "InputError: TWEET is not UTF-8"),
        (b'{"text": "Rome", "image": "/etc/hostname"}', "InputError: TWEET has image: pictures are the inputs IMAGE"),
        (b'{"words": []}', "TextError: the text is empty"),
    ],
)
def test_bad_requests(server: Any, text: bytes, message: str) -> None:
    for model in ("ner", "alone"):
        tweet = tritonclient.http.InferInput("TWEET", [1, 1], "BYTES")
        tweet.set_data_from_numpy(strings([[text]]))
        with pytest.raises(InferenceServerException, match=message) as caught:
            server.http.infer(model, [tweet])
        assert caught.value.status() == "400"


def test_every_row_of_a_request_counts(server: Any) -> None:
    rows = [Tweet(text="Rome"), Tweet(text="")]
    with pytest.raises(InferenceServerException, match="TextError: tweet 1: the text is empty"):
        server.http.infer("alone", tensors(tritonclient.http, rows))


def test_a_picture_seen_before_is_not_computed_again(server: Any, case: Any) -> None:
    task, tweets, _ = case
    over_http(server, task, tweets)

    def computed() -> int:
        return server.grpc.get_inference_statistics(f"{task}_vision").model_stats[0].inference_count

    before = computed()
    over_http(server, task, tweets)
    assert computed() == before


def test_an_engine_that_is_gone_is_named(server: Any, case: Any, assert_equal: Any) -> None:
    task, tweets, expected = case
    server.grpc.unload_model(f"{task}_text")
    with pytest.raises(InferenceServerException, match=f"BackendError: {task}_text failed"):
        server.http.infer(task, tensors(tritonclient.http, tweets[:2]))
    server.grpc.load_model(f"{task}_text")
    assert_equal(over_http(server, task, tweets[:2]), expected[:2])
