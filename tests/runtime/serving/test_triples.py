"""`/v1/triples`, and relations with their probabilities, against the library's own answers."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from hvpnet import AsyncClient, Client, InputError, Pipeline, RelationResult, TextError, TriplePipeline, Tweet
from hvpnet_runtime.client.conversation import _triples
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.errors import UnknownBundleError
from hvpnet_runtime.serving.in_process import InProcess
from hvpnet_runtime.serving.metrics import Metrics

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("capitals")]

POSTS = [Tweet(text="Jordan met Florence at UNICEF , Georgia !", id="a"), Tweet(words=["Paris"], id=2)]


@pytest.fixture(scope="module")
def triples(settings: Settings) -> Callable[[Sequence[Tweet]], list[dict[str, Any]]]:
    pipeline = TriplePipeline(*(Pipeline.load(path, window=True) for path in settings.bundles.values()))
    return lambda posts: [result.to_dict() for result in pipeline(posts)]


def test_triples_of_posts(
    client: TestClient,
    triples: Callable[..., list[dict[str, Any]]],
    drawn_tweets: dict[str, list[Tweet]],
    as_json: Callable[[Tweet], dict[str, Any]],
    close_to: Callable[..., bool],
) -> None:
    posts = [*POSTS, *drawn_tweets["ner"][:2]]
    response = client.post("/v1/triples", json={"tweets": [as_json(post) for post in posts]})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["entities"], answer["relations"]) == ("ner", "re")
    expected = triples(posts)
    assert sum(len(result["triples"]) for result in expected) >= 3
    assert close_to(answer["results"], expected)
    named = {"entities": "ner", "relations": "re", "tweets": [as_json(POSTS[0])]}
    assert close_to(client.post("/v1/triples", json=named).json()["results"], expected[:1])


def test_settings_of_triples(settings: Settings, metrics: Metrics) -> None:
    strict = Settings.parse(settings.model_dump() | {"triples": {"threshold": 1.0, "max_pairs": 1}})
    extractor = InProcess(strict, pytest.fail)
    try:
        client = TestClient(create_api(strict, extractor, metrics))
        (result,) = client.post("/v1/triples", json={"tweets": [{"text": POSTS[0].text}]}).json()["results"]
    finally:
        extractor.close()
    assert result["triples"] == []
    assert result["cut_pairs"] > 0


def test_a_request_does_not_wait_for_those_that_come_after_it(settings: Settings, metrics: Metrics) -> None:
    """Nor hold a thread while it waits: many are answered although the backend of entities is always busy."""
    extractor = InProcess(settings.model_copy(update={"threads": 1}), pytest.fail)
    try:

        async def ask() -> list[Any]:
            busy = True

            async def others() -> None:
                while busy:
                    await extractor.extract("ner", [Tweet(text="Jordan was great")])

            crowd = [asyncio.ensure_future(others()) for _ in range(6)]
            answers = await asyncio.wait_for(
                asyncio.gather(*(extractor.relate("ner", "re", [POSTS[0]]) for _ in range(12))), 60
            )
            busy = False
            await asyncio.gather(*crowd)
            return answers

        answers = asyncio.run(ask())
    finally:
        extractor.close()
    assert {len(each[0].triples) for each in answers} == {len(answers[0][0].triples)}


def test_a_cancelled_request_ends(settings: Settings) -> None:
    extractor = InProcess(settings, pytest.fail)
    try:

        async def ask() -> None:
            work = asyncio.ensure_future(extractor.relate("ner", "re", POSTS))
            await asyncio.sleep(0)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            (answer,) = await extractor.relate("ner", "re", POSTS[:1])
            assert answer.id == "a"

        asyncio.run(ask())
    finally:
        extractor.close()


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"tweets": [{"text": ""}]}, 422, "tweet 0: the text is empty"),
        ({"tweets": [{"words": ["Jordan", "<s>"]}]}, 422, "contains a relation marker"),
        ({"entities": "re", "tweets": [{"text": "a"}]}, 422, "'re' is for the task re: name one for ner"),
        ({"relations": "none", "tweets": [{"text": "a"}]}, 404, "no bundle 'none' is served, only ner, re"),
        ({"bundle": "ner", "tweets": [{"text": "a"}]}, 422, "the key 'bundle' is not known"),
        ({"tweets": []}, 422, "tweets"),
    ],
)
def test_what_is_refused(client: TestClient, request_: dict[str, Any], status: int, detail: str) -> None:
    response = client.post("/v1/triples", json=request_)
    assert (response.status_code, detail in response.json()["detail"]) == (status, True), response.text


def test_a_service_of_one_kind_has_no_triples(settings: Settings, extractor: InProcess, metrics: Metrics) -> None:
    one = settings.model_copy(update={"bundles": {"ner": settings.bundles["ner"]}})
    response = TestClient(create_api(one, extractor, metrics)).post("/v1/triples", json={"tweets": [{"text": "a"}]})
    assert response.status_code == 404
    assert response.json()["detail"] == "no bundle for the task re is served; serve one beside the others"


def test_probabilities_of_relations(client: TestClient, settings: Settings) -> None:
    tweet = {"text": "Jordan and Florence", "head": [0, 6], "tail": [11, 19]}
    with Pipeline.load(settings.bundles["re"], window=True) as pipeline:
        (known,) = pipeline([Tweet(**tweet)])  # type: ignore[arg-type]
    for top_k in (0, 2, 99):
        response = client.post("/v1/extract", json={"bundle": "re", "top_k": top_k, "tweets": [tweet]})
        (result,) = response.json()["results"]
        expected = known.to_dict(top_k)
        assert list(result.get("probabilities", ())) == list(expected.get("probabilities", ()))
        assert result.get("probabilities", {}) == pytest.approx(expected.get("probabilities", {}), abs=1e-5)
        assert ("probabilities" in result) == bool(top_k)
    refused = client.post("/v1/extract", json={"bundle": "ner", "top_k": 2, "tweets": [{"text": "a"}]})
    assert refused.status_code == 422
    assert "top_k is for relations, and 'ner' is a bundle for entities" in refused.json()["detail"]
    assert client.post("/v1/extract", json={"top_k": -1, "tweets": [tweet]}).status_code == 422


def test_clients(
    settings: Settings, extractor: InProcess, metrics: Metrics, triples: Callable[..., list[dict[str, Any]]]
) -> None:
    api = create_api(settings, extractor, metrics)
    given = [*POSTS, POSTS[0], POSTS[1], POSTS[0]]  # more than one request holds
    expected = [_triples(None, result) for result in triples(given)]

    async def ask() -> None:
        async with AsyncClient("http://service", transport=httpx2.ASGITransport(api)) as client:
            results = await client.triples(given)
            for result, known, post in zip(results, expected, given, strict=True):
                assert result.id == post.id
                assert [each.relation for each in result.triples] == [each.relation for each in known.triples]
                assert [each.head.text for each in result.triples] == [each.head.text for each in known.triples]
                for found, wanted in zip(result.triples, known.triples, strict=True):
                    assert found.probabilities == pytest.approx(dict(wanted.probabilities), abs=1e-5)
            assert [each.id for each in await client.triples(POSTS, entities="ner", relations="re")] == ["a", 2]
            with pytest.raises(TextError, match="tweet 1"):
                await client.triples([POSTS[0], Tweet(text="")])

    async def ask_for_relations() -> None:
        pair = Tweet(text="Jordan and Florence", head=(0, 6), tail=(11, 19))
        async with AsyncClient("http://service", bundle="re", transport=httpx2.ASGITransport(api)) as client:
            (result,) = await client.extract([pair], top_k=2)
            assert isinstance(result, RelationResult)
            assert next(iter(result.probabilities)) == result.relation
            assert len(result.probabilities) == 2
            with pytest.raises(InputError, match="asks the bundle 're' alone"):
                await client.triples(POSTS)

    asyncio.run(ask())
    asyncio.run(ask_for_relations())


def test_a_client_of_a_service_of_one_kind() -> None:
    problem = {"title": "UnknownBundleError", "detail": "no bundle for the task re is served", "status": 404}

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/service":
            return httpx2.Response(200, json={"bundles": [], "limits": {"tweets": 4, "body_bytes": 300_000}})
        return httpx2.Response(404, json=problem)

    with (
        Client("http://service", transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(UnknownBundleError, match="no bundle for the task re is served"),
    ):
        client.triples(POSTS)


def test_both_forms_give_triples(service: Any) -> None:
    with Client(service.url) as client:
        outcomes = list(client.stream_triples([POSTS[0], Tweet(text=""), POSTS[1]]))
    assert [type(each).__name__ for each in outcomes] == ["TripleResult", "Rejection", "TripleResult"]
    assert [each.id for each in outcomes] == ["a", None, 2]
