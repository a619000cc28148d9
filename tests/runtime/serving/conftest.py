"""The service without Ray around it, tweets to send, and the library's own answers to them."""

import base64
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from hvpnet.data import load_split
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.serving import Settings
from hvpnet_runtime.serving.api import create_api
from hvpnet_runtime.serving.in_process import InProcess
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments
from hvpnet_runtime.serving.server import local_service

Json = dict[str, Any]


@pytest.fixture(scope="session")
def settings(ner_bundle: Path, re_bundle: Path) -> Settings:
    """Both tasks, with limits that tests can reach."""
    limits = {
        "body_bytes": 300_000,
        "body_seconds": 0.5,
        "tweets": 4,
        "text_characters": 400,
        "picture_pixels": 1_000_000,
        "queue": 4,
        "retry_after_seconds": 7,
    }
    return Settings.parse({"bundles": {"ner": ner_bundle, "re": re_bundle}, "window": True, "limits": limits})


@pytest.fixture(scope="session")
def extractor(settings: Settings) -> Iterator[InProcess]:
    """What answers in one process, without HTTP."""
    extractor = InProcess(settings, pytest.fail)
    yield extractor
    extractor.close()


@pytest.fixture
def metrics() -> Metrics:
    """Counts, and nobody looks."""
    return Metrics(PrometheusInstruments(CollectorRegistry()))


@pytest.fixture
def client(settings: Settings, extractor: InProcess, metrics: Metrics) -> TestClient:
    """Talks to the interface in this process. A failure of the service is answered with 500, as over a network."""
    return TestClient(create_api(settings, extractor, metrics), raise_server_exceptions=False)


@pytest.fixture(scope="session")
def drawn_tweets(picture_tweets: Callable[[str], Path]) -> dict[str, list[Tweet]]:
    """The test split of picture-tweets, by task."""
    return {
        task: [example.tweet for example in load_split(picture_tweets(task), "test").examples] for task in ("ner", "re")
    }


@pytest.fixture(scope="session")
def answers(settings: Settings) -> Iterator[Callable[[str, Sequence[Tweet]], list[Json]]]:
    """What the library answers, as JSON."""
    pipelines = {name: Pipeline.load(path, window=True) for name, path in settings.bundles.items()}
    yield lambda bundle, tweets: [
        json.loads(json.dumps(result.to_dict())) for result in pipelines[bundle](list(tweets))
    ]
    pipelines.clear()


@pytest.fixture(scope="session")
def close_to() -> Callable[[Any, Any], bool]:
    """Whether decisions are equal, and scores as close as they are in batches of different tweets."""

    def close(found: Any, expected: Any) -> bool:
        if isinstance(expected, float):
            return found == pytest.approx(expected, abs=1e-5)
        if isinstance(expected, dict):
            return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
        if isinstance(expected, list):
            return len(found) == len(expected) and all(map(close, found, expected))
        return found == expected

    return close


def read(picture: Any) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


@pytest.fixture(scope="session")
def as_json() -> Callable[[Tweet], Json]:
    """A tweet as the service reads it, pictures in base64."""

    def message(tweet: Tweet) -> Json:
        pictures = {
            "image": None if tweet.image is None else base64.b64encode(read(tweet.image)).decode(),
            "objects": [base64.b64encode(read(crop)).decode() for crop in tweet.objects or ()],
        }
        return {name: value for name, value in (vars(tweet) | pictures).items() if value not in (None, (), [])}

    return message


@pytest.fixture(scope="session")
def as_parts() -> Callable[[str, Sequence[Tweet]], dict[str, tuple[str | None, bytes | str]]]:
    """Tweets as a multipart body: the JSON, and the pictures beside it."""

    def parts(bundle: str, tweets: Sequence[Tweet]) -> dict[str, tuple[str | None, bytes | str]]:
        files: dict[str, tuple[str | None, bytes | str]] = {}

        def name(picture: Any) -> str:
            part = f"picture {len(files)}"
            files[part] = ("file", read(picture))
            return part

        messages = []
        for tweet in tweets:
            named = replace(
                tweet,
                image=None if tweet.image is None else name(tweet.image),
                objects=[name(crop) for crop in tweet.objects or ()],
            )
            messages.append({key: value for key, value in vars(named).items() if value not in (None, (), [])})
        return {"request": (None, json.dumps({"bundle": bundle, "tweets": messages}))} | files

    return parts


@dataclass(frozen=True)
class Service:
    """A running service, its settings, and what its metrics' names begin with."""

    url: str
    settings: Settings
    prefix: str

    def processes(self) -> dict[int, str]:
        """Names of the processes under this one, by id."""
        parents, names = {}, {}
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                fields = dict(line.split(":\t", 1) for line in status.read_text("utf-8").splitlines() if ":\t" in line)
                names[int(fields["Pid"])] = (status.parent / "cmdline").read_text("utf-8").split("\0")[0]
            except (OSError, KeyError):  # gone meanwhile
                continue
            parents[int(fields["Pid"])] = int(fields["PPid"])
        below = {os.getpid()}
        while more := {pid for pid, parent in parents.items() if parent in below} - below:
            below |= more
        return {pid: names[pid] for pid in below - {os.getpid()}}

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas. While one works, the name of its method follows the deployment's."""
        name = f"ray::ServeReplica:default:{deployment}"
        return [pid for pid, process in self.processes().items() if process.partition(".")[0] == name]


@pytest.fixture(scope="module")
def no_ray() -> None:
    """No Ray in this process that another module left."""
    import ray

    ray.shutdown()


def service_settings(ner_bundle: Path, re_bundle: Path) -> Settings:
    """Both tasks; on Ray, two of everything that requests of the first bundle pass through."""
    return Settings.parse(
        {
            "bundles": {"ner": ner_bundle, "re": re_bundle},
            "threads": 1,
            "window": True,  # the pairs of some published tweets lie beyond the tiny model's budget
            "limits": {"body_bytes": 4_000_000, "picture_pixels": 1_000_000, "text_characters": 1_000},
            "ingress": {"least": 2, "most": 2},
            "inference": {"least": 2, "most": 2},
        }
    )


@pytest.fixture(scope="module")
def ray_form(ner_bundle: Path, re_bundle: Path, no_ray: None, free_port: Callable[[], int]) -> Iterator[Service]:
    """The service on Ray."""
    settings = service_settings(ner_bundle, re_bundle)
    from hvpnet_runtime.serving.on_ray.start import ray_service

    with ray_service(settings, "127.0.0.1", free_port()) as url:
        yield Service(url, settings, "ray_hvpnet")


@pytest.fixture(scope="module")
def local_form(ner_bundle: Path, re_bundle: Path, free_port: Callable[[], int]) -> Iterator[Service]:
    """The service in this process."""
    settings = service_settings(ner_bundle, re_bundle)
    with local_service(settings, "127.0.0.1", free_port(), SimpleQueue()) as url:
        yield Service(url, settings, "hvpnet")


@pytest.fixture(params=["local_form", "ray_form"])
def service(request: pytest.FixtureRequest) -> Service:
    """Either form of it."""
    form: Service = request.getfixturevalue(request.param)
    return form
