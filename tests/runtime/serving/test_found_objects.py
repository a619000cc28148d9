"""The service finds objects where a request gives none, and its client tells what was found."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tiny_grounder import COLOURS, add_grounder
from waiting import eventually

from hvpnet_runtime import BackendError, Pipeline, Tweet
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


def photo(colour: str = "red") -> bytes:
    image, file = Image.new("RGB", (64, 64), "white"), io.BytesIO()
    image.paste(COLOURS[colour], BOX)
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
        _, request, _ = body(None, [item])["files"]["request"]
        (message,) = json.loads(request)["tweets"]
        told.append({name: message[name] for name in ("objects", "boxes") if name in message})
    assert told == [{}, {"objects": []}, {"boxes": []}, {"boxes": [list(BOX)]}]


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
