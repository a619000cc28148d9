"""The service finds objects where a request gives none, and its client tells what was found."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tiny_grounder import COLOURS, add_grounder
from waiting import eventually

from hvpnet_runtime import BackendError, BundleError, Pipeline, TriplePipeline, Tweet
from hvpnet_runtime.backends import Grounder
from hvpnet_runtime.client.conversation import _result
from hvpnet_runtime.client.requests import Encoded, body, encode
from hvpnet_runtime.serving import Settings, health
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.in_process import InProcess
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments

pytestmark = pytest.mark.heavy

BOX = (4, 8, 24, 40)
TEXT = "Jordan was great in Madison today"
PATIENCE = 120  # seconds for what must happen to happen; nothing is measured


def photo(colour: str = "red", box: tuple[int, int, int, int] = BOX) -> bytes:
    image, file = Image.new("RGB", (64, 64), "white"), io.BytesIO()
    image.paste(COLOURS[colour], box)
    image.save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def path(ner_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_grounder(Path(shutil.copytree(ner_bundle, tmp_path_factory.mktemp("found") / "bundle")))


@pytest.fixture(scope="module")
def ask(path: Path, ner_bundle: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    settings = Settings.parse({"bundles": {"found": path, "plain": ner_bundle}, "backend": "onnxruntime-cpu"})
    extractor = InProcess(settings, pytest.fail)
    metrics = Metrics(PrometheusInstruments(CollectorRegistry()))
    client = TestClient(create_api(settings, extractor, metrics))

    def post(bundle: str, *tweets: dict[str, Any]) -> list[dict[str, Any]]:
        response = client.post("/v1/extract", json={"bundle": bundle, "tweets": tweets})
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    yield post
    extractor.close()


@pytest.fixture(scope="module")
def by_text(re_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for relations that looks for head and tail."""
    out = tmp_path_factory.mktemp("pairs") / "bundle"
    return add_grounder(Path(shutil.copytree(re_bundle, out)), queries="text")


NAMED = [
    {"text": "Red met Blue at Green today", "image": base64.b64encode(photo(colour)).decode()}
    for colour in ("red", "blue")
]


def triples_of(entities: Path, relations: Path) -> list[dict[str, Any]]:
    """What the library answers to `NAMED`."""
    posts = [Tweet(text=each["text"], image=base64.b64decode(each["image"])) for each in NAMED]
    both = (Pipeline.load(path, "onnxruntime-cpu", window=True) for path in (entities, relations))
    with TriplePipeline(*both) as pipeline:
        answers: list[dict[str, Any]] = json.loads(json.dumps([each.to_dict() for each in pipeline(posts)]))
    assert sum(len(each["triples"]) for each in answers) >= 2
    return answers


def test_what_is_not_given_is_found(ask: Callable[..., list[dict[str, Any]]], path: Path) -> None:
    bare = {"text": TEXT, "image": base64.b64encode(photo()).decode()}
    found, null, none, no_boxes, given = ask(
        "found",
        bare,
        bare | {"objects": None, "boxes": None},
        bare | {"objects": []},
        bare | {"boxes": []},
        bare | {"boxes": [BOX]},
    )
    assert found["objects"] == [{"box": list(BOX), "query": "red", "score": pytest.approx(640 / 4096)}]
    assert null == found
    assert none == no_boxes
    assert none["objects"] == given["objects"] == []
    with Pipeline.load(path, "onnxruntime-cpu") as pipeline:
        (expected,) = pipeline([Tweet(text=TEXT, image=photo())])
    assert found["tags"] == given["tags"] == list(expected.to_dict()["tags"])
    assert _result(None, found).objects == expected.objects


def test_a_bundle_without_a_grounder_answers_as_before(ask: Callable[..., list[dict[str, Any]]]) -> None:
    (answer,) = ask("plain", {"text": TEXT, "image": base64.b64encode(photo()).decode()})
    assert list(answer) == ["id", "entities", "tags", "cut_words"]
    assert _result(None, answer).objects is None


def test_grounding_is_measured_as_a_stage(path: Path) -> None:
    """Counted are the pictures that objects are looked for in, by whether they were searched before."""
    settings = Settings.parse({"bundles": {"found": path}, "backend": "onnxruntime-cpu"})
    extractor = InProcess(settings, pytest.fail)
    client = TestClient(create_api(settings, extractor, extractor.own_metrics))
    bare = {"text": TEXT, "image": base64.b64encode(photo()).decode()}
    other = bare | {"image": base64.b64encode(photo("blue")).decode()}

    def measured(name: str, **labels: str) -> float | None:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = {
            (each.name, *sorted(each.labels.items())): each.value for family in families for each in family.samples
        }
        return samples.get((name, *sorted(({"bundle": "found"} | labels).items())))

    try:
        assert measured("hvpnet_stage_seconds_count", stage="ground") is None
        for tweets in ([bare, other], [bare], [bare | {"objects": []}, {"text": TEXT}, bare | {"boxes": [BOX]}]):
            response = client.post("/v1/extract", json={"tweets": tweets})
            assert response.status_code == 200, response.text
        assert measured("hvpnet_stage_seconds_count", stage="ground") == 3
        assert measured("hvpnet_ground_misses_total") == 2
        assert measured("hvpnet_ground_hits_total") == 1
        ground = measured("hvpnet_stage_spent_seconds_total", stage="ground")
        prepare = measured("hvpnet_stage_spent_seconds_total", stage="prepare")
        assert ground is not None
        assert prepare is not None
        assert 0 < ground < prepare  # a part of it
    finally:
        extractor.close()


def test_the_client_sends_what_a_tweet_says_of_its_objects() -> None:
    bare = Tweet(text=TEXT, image=photo())
    told = []
    for tweet in (bare, replace(bare, objects=()), replace(bare, boxes=[]), replace(bare, boxes=[BOX])):
        item = encode(0, tweet, 2**20)
        assert isinstance(item, Encoded)
        _, request, _ = body({}, [item])["files"]["request"]
        (message,) = json.loads(request)["tweets"]
        told.append({name: message[name] for name in ("objects", "boxes") if name in message})
    assert told == [{}, {"objects": []}, {"boxes": []}, {"boxes": [list(BOX)]}]


def test_on_ray_a_deployment_of_its_own_finds_them(
    path: Path, ner_bundle: Path, ask: Any, close_to: Any, free_port: Any
) -> None:
    """Its runs have pictures of several tweets; known ones are not searched again; a death costs no request."""
    import ray
    from ray import serve

    from hvpnet_runtime.serving.on_ray.start import ray_service

    ray.shutdown()  # that of another module
    settings = Settings.parse({"bundles": {"found": path, "plain": ner_bundle}, "backend": "onnxruntime-cpu"})
    pictures = [photo(colour, (x, 8, 24, 40)) for x in (2, 4, 6, 8) for colour in ("red", "blue")]
    tweets = [{"text": TEXT, "image": base64.b64encode(picture).decode()} for picture in pictures]
    given = tweets[0] | {"boxes": [BOX]}

    with ray_service(settings, "127.0.0.1", free_port()) as url:

        def post(bundle: str, *tweets: dict[str, Any]) -> Any:
            body = {"bundle": bundle, "tweets": tweets}
            response = httpx2.post(f"{url}/v1/extract", json=body, timeout=PATIENCE)
            assert response.status_code == 200, response.text
            return response.json()["results"]

        def measured() -> dict[str, float]:
            """Sums by name, and by stage."""
            sums = dict[str, float]()
            for family in text_string_to_metric_families(httpx2.get(f"{url}/metrics", timeout=PATIENCE).text):
                for each in family.samples:
                    if "le" not in each.labels:
                        name = each.name.removeprefix("ray_hvpnet_") + each.labels.get("stage", "")
                        sums[name] = sums.get(name, 0) + each.value
            return sums

        deployments = set(serve.status().applications["default"].deployments)
        assert {name for name in deployments if name.startswith("grounding")} == {"grounding-found"}
        expected = ask("found", *tweets)
        for _ in range(2):
            assert close_to(post("found", *tweets, *tweets, given), [*expected, *expected, *ask("found", given)])
        assert close_to(post("plain", *tweets), ask("plain", *tweets))
        found = eventually(lambda: (now := measured()).get("ground_hits_total") == 24 and now)
        assert found["ground_misses_total"] == 8
        assert found["stage_seconds_countground_queue"] == 8
        assert 1 <= found["stage_seconds_countground_run"] == found["ground_batch_pictures_count"] < 8

        named = ray.util.list_named_actors(all_namespaces=True)
        (replica,) = (each for each in named if "grounding-found" in each["name"])
        ray.kill(ray.get_actor(**replica))
        more = {"text": TEXT, "image": base64.b64encode(photo("green")).decode()}
        assert close_to(post("found", more), ask("found", more))


@pytest.mark.usefixtures("capitals")
def test_the_steps_on_ray_make_the_same_triples(
    ner_bundle: Path, by_text: Path, monkeypatch: pytest.MonkeyPatch, close_to: Any
) -> None:
    """Without Ray, from call to call of its deployments; what is rejected goes through as it came."""
    from hvpnet_runtime.serving.on_ray import posts

    settings = Settings.parse({"bundles": {"ner": ner_bundle, "pairs": by_text}, "backend": "onnxruntime-cpu"})
    monkeypatch.setattr(posts, "RayInstruments", lambda: PrometheusInstruments(CollectorRegistry()))
    names, given = ("ner", "pairs"), [Tweet(text=each["text"], image=base64.b64decode(each["image"])) for each in NAMED]
    with (
        Pipeline.load(ner_bundle, "onnxruntime-cpu", objects="given") as entities,
        Pipeline.load(by_text, "onnxruntime-cpu") as relations,
    ):
        assert relations.finder is not None
        search = relations.finder._searcher
        handle = SimpleNamespace(remote=lambda asked: SimpleNamespace(result=lambda: search(asked)))
        making = posts.RayPosts({"pairs": handle}, settings)  # type: ignore[dict-item]
        prepared = making.prepare(*names, given)
        asked = making.ask(*names, prepared, entities.run(prepared))  # type: ignore[arg-type]
        answers = making.settle(*names, asked, relations.run(making.pairs(asked)))  # type: ignore[arg-type]
        assert close_to([json.loads(json.dumps(each.to_dict())) for each in answers], triples_of(ner_bundle, by_text))
        bad = making.prepare(*names, [given[0], Tweet(text="")])
        assert [(each.row, each.type) for each in bad] == [(1, "TextError")]  # type: ignore[union-attr]
        assert making.ask(*names, bad, bad) == making.pairs(bad) == making.settle(*names, bad, bad) == bad  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "found"), [("none", None), ("given", None), ("found", (BOX,))])
def test_the_service_reads_the_objects_that_it_is_told_to(path: Path, close_to: Any, source: str, found: Any) -> None:
    settings = Settings.parse({"bundles": {"found": path}, "backend": "onnxruntime-cpu", "objects": source})
    extractor = InProcess(settings, pytest.fail)
    try:
        client = TestClient(create_api(settings, extractor, extractor.own_metrics))
        tweet = {"text": TEXT, "image": base64.b64encode(photo()).decode(), "boxes": [[0, 0, 64, 64]]}
        (answer,) = client.post("/v1/extract", json={"tweets": [tweet]}).json()["results"]
    finally:
        extractor.close()
    with Pipeline.load(path, "onnxruntime-cpu", objects=source) as pipeline:  # type: ignore[arg-type]
        (expected,) = pipeline([Tweet(text=TEXT, image=photo(), boxes=[(0, 0, 64, 64)])])
    assert close_to(answer, json.loads(json.dumps(expected.to_dict())))
    assert found == (tuple(tuple(each["box"]) for each in answer["objects"]) if "objects" in answer else None)


def test_on_ray_objects_to_find_need_a_grounder(ner_bundle: Path, free_port: Any) -> None:
    from hvpnet_runtime.serving.on_ray.start import ray_service

    settings = Settings.parse({"bundles": {"plain": ner_bundle}, "objects": "found"})
    with (
        pytest.raises(BundleError, match="has no grounder, which finds objects: "),
        ray_service(settings, "127.0.0.1", free_port()),
    ):
        pytest.fail("it starts")


@pytest.mark.usefixtures("capitals")
@pytest.mark.parametrize("failures", [0, 1, 100])
def test_pairs_whose_objects_are_found_by_their_names(
    ner_bundle: Path, by_text: Path, monkeypatch: Any, close_to: Any, failures: int
) -> None:
    """A picture is searched once for all pairs of its post; a grounder that is lost for good ends the service."""
    monkeypatch.setattr(health, "_PAUSE_SECONDS", 0)
    settings = Settings.parse({"bundles": {"ner": ner_bundle, "pairs": by_text}, "backend": "onnxruntime-cpu"})
    gave_up, left, searches = list[Exception](), [failures], list[int]()
    extractor, search = InProcess(settings, gave_up.append), Grounder.find_objects

    def counted(*arguments: Any) -> Any:
        searches.append(arguments[2].shape[1])
        left[0] -= 1
        if left[0] >= 0:
            raise BackendError("the device is lost")
        return search(*arguments)

    monkeypatch.setattr(Grounder, "find_objects", counted)
    client = TestClient(create_api(settings, extractor, extractor.own_metrics), raise_server_exceptions=False)
    try:
        response = client.post("/v1/triples", json={"tweets": NAMED})
        if failures == 100:
            assert response.status_code == 500
            assert eventually(lambda: gave_up)
            assert list(map(str, gave_up)) == ["the grounder of pairs failed for good: the device is lost"]
        if failures == 1:
            assert (response.status_code, response.json()["detail"]) == (500, "the device is lost")
            response = client.post("/v1/triples", json={"tweets": NAMED})
        if failures < 100:
            assert close_to(response.json()["results"], triples_of(ner_bundle, by_text))
            assert searches[failures and 2 :][:2] == [3, 3]
            assert gave_up == []
    finally:
        extractor.close()


@pytest.mark.parametrize("failures", [1, 100])
def test_a_grounder_that_is_lost_for_good_ends_the_service(path: Path, monkeypatch: Any, failures: int) -> None:
    monkeypatch.setattr(health, "_PAUSE_SECONDS", 0)
    settings = Settings.parse({"bundles": {"found": path}, "backend": "onnxruntime-cpu"})
    gave_up, left = list[Exception](), [failures]
    extractor, search = InProcess(settings, gave_up.append), Grounder.find_objects

    def fail(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise BackendError("the device is lost")
        return search(*arguments)

    monkeypatch.setattr(Grounder, "find_objects", fail)
    client = TestClient(create_api(settings, extractor, extractor.own_metrics), raise_server_exceptions=False)
    try:
        bare = {"text": TEXT, "image": base64.b64encode(photo()).decode()}
        assert client.post("/v1/extract", json={"tweets": [bare]}).status_code == 500
        if failures == 1:
            assert client.post("/v1/extract", json={"tweets": [bare]}).status_code == 200
            assert gave_up == []
        else:
            assert eventually(lambda: gave_up)
            assert list(map(str, gave_up)) == ["the grounder of found failed for good: the device is lost"]
            assert client.post("/v1/extract", json={"tweets": [{"text": TEXT}]}).status_code == 503
    finally:
        extractor.close()
