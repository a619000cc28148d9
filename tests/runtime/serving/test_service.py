"""The service in both its forms: the library's answers; and on Ray also while replicas die."""

import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import eventually, settled

from hvpnet_runtime.ray_processes import PICTURE_PROCESS

pytestmark = pytest.mark.heavy

CLIENTS = 6
PATIENCE = 60  # seconds for what must happen to happen; nothing is measured


def post(url, body, **options):
    return httpx2.post(f"{url}/v1/extract", json=body, timeout=PATIENCE, **options)


@pytest.mark.parametrize("task", ["ner", "re"])
def test_answers_are_the_librarys(service, drawn_tweets, answers, as_json, as_parts, close_to, task):
    """One by one and many at once, so that batches mix the requests; as JSON and as multipart; and all in one."""
    tweets = drawn_tweets[task]
    expected = answers(task, tweets)

    def one(index):
        if index % 2:
            return post(service.url, {"bundle": task, "tweets": [as_json(tweets[index])]})
        return httpx2.post(f"{service.url}/v1/extract", files=as_parts(task, [tweets[index]]), timeout=PATIENCE)

    with ThreadPoolExecutor(8) as clients:
        for response, result in zip(clients.map(one, range(len(tweets))), expected, strict=True):
            assert response.status_code == 200, response.text
            assert close_to(response.json(), {"bundle": task, "results": [result]})
    together = post(service.url, {"bundle": task, "tweets": list(map(as_json, tweets))}).json()
    assert close_to(together, {"bundle": task, "results": expected})


@pytest.mark.golden
@pytest.mark.parametrize("task", ["ner", "re"])
def test_answers_to_the_published_tweets(service, golden_tweets, answers, as_json, as_parts, close_to, task):
    tweets = golden_tweets(task)
    expected = {"bundle": task, "results": answers(task, tweets)}
    assert close_to(post(service.url, {"bundle": task, "tweets": list(map(as_json, tweets))}).json(), expected)
    multipart = httpx2.post(f"{service.url}/v1/extract", files=as_parts(task, tweets), timeout=PATIENCE)
    assert close_to(multipart.json(), expected)


def series(url):
    """Values by metric and label of interest, summed over the replicas."""
    values = {}
    for family in text_string_to_metric_families(httpx2.get(f"{url}/metrics", timeout=PATIENCE).text):
        for sample in family.samples:
            key = (
                sample.name,
                *(sample.labels.get(name) for name in ("bundle", "type", "stage") if name in sample.labels),
            )
            if "le" not in sample.labels:
                values[key] = values.get(key, 0) + sample.value
    return values


def growth(url, act, expected):
    """How much each series grows by what `act` does, once those that are `expected` have come so far."""
    before = settled(lambda: series(url))
    act()

    def grown():
        found = {key: value - before.get(key, 0) for key, value in series(url).items()}
        return found if {key: found.get(key) for key in expected} == expected else None

    return eventually(grown)


def test_metrics_add_up_over_the_replicas(service, drawn_tweets, as_json):
    """Two ingress replicas and two engines share the work; whichever answers /metrics knows all of it."""
    tweets = [as_json(tweet) for tweet in drawn_tweets["ner"][:6]]

    def act():
        for _ in range(20):
            assert post(service.url, {"tweets": tweets}).status_code == 200
            assert post(service.url, {"tweets": [{"text": ""}]}).status_code == 422

    expected = {
        (f"{service.prefix}_tweets_total", "ner"): 120,
        (f"{service.prefix}_batched_tweets_total", "ner"): 120,
        (f"{service.prefix}_errors_total", "TextError"): 20,
        (f"{service.prefix}_batch_tweets_count", "ner"): 20,
    }
    calls = {"total": 20, "prepare": 40, "queue": 20, "inference": 20}
    expected |= {(f"{service.prefix}_stage_seconds_count", "ner", stage): count for stage, count in calls.items()}
    grown = growth(service.url, act, expected)
    pictures = {read for tweet in tweets for read in (tweet.get("image"), *tweet.get("objects", [])[:3]) if read}
    hits, misses = (grown[f"{service.prefix}_cache_{kind}_total", "ner"] for kind in ("hits", "misses"))
    assert hits + misses == 20 * len(pictures)
    assert misses <= 2 * len(pictures)  # once in each of the two engines


def test_requests_that_wait_share_a_batch(service):
    """While an engine runs, whoever comes gathers behind it."""

    def act():
        with ThreadPoolExecutor(32) as clients:
            responses = list(clients.map(lambda _: post(service.url, {"bundle": "re", "tweets": [PAIR]}), range(192)))
        assert {response.status_code for response in responses} == {200}

    grown = growth(service.url, act, {(f"{service.prefix}_batched_tweets_total", "re"): 192})
    assert grown[f"{service.prefix}_batch_tweets_count", "re"] < 192


PAIR = {"words": ["Jordan", "visits", "Paris"], "head": [0, 1], "tail": [2, 3]}


class Load:
    """Clients that send tweets one after the other, all the time, and keep what they got for each."""

    def __init__(self, url, bodies):
        self.bodies = bodies
        self.answers = []  # of pairs: index of the body, response or error
        self._url, self._indices = f"{url}/v1/extract", itertools.cycle(range(len(bodies)))
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_on) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more):
        target = len(self.answers) + more
        eventually(lambda: len(self.answers) >= target)

    def send(self, client, index):
        try:
            return index, client.post(self._url, json=self.bodies[index])
        except httpx2.TransportError as error:
            return index, error

    def _send_on(self):
        with httpx2.Client(timeout=PATIENCE) as client:
            while not self._stop.is_set():
                self.answers.append(self.send(client, next(self._indices)))


@pytest.fixture
def load(ray_form, drawn_tweets, as_json):
    return Load(ray_form.url, [{"tweets": [as_json(tweet)]} for tweet in drawn_tweets["ner"]])


@pytest.fixture
def is_right(drawn_tweets, answers, close_to):
    expected = answers("ner", drawn_tweets["ner"])

    def right(answer):
        index, response = answer
        return response.status_code == 200 and close_to(response.json()["results"], [expected[index]])

    return right


@pytest.mark.parametrize(("deployment", "replicas"), [("inference-ner", 2), ("preparation-ner", 1)])
def test_no_request_is_lost_when_a_replica_is_killed(ray_form, load, is_right, deployment, replicas):
    """Every request is answered, and rightly: those that the dead replica had in hand as well."""
    with load:
        for _ in range(2):
            load.wait_for(60)
            os.kill(eventually(lambda: ray_form.replicas(deployment))[0], signal.SIGKILL)
        load.wait_for(60)
    assert [answer for answer in load.answers if not is_right(answer)] == []
    eventually(lambda: len(ray_form.replicas(deployment)) == replicas)


def test_a_killed_ingress_acknowledges_nothing_it_did_not_do(ray_form, load, is_right):
    """Each client sees that the requests in hand failed, and they succeed when sent again."""
    with load:
        load.wait_for(60)
        os.kill(ray_form.replicas("ingress")[0], signal.SIGKILL)
        load.wait_for(60)
    failed = [answer for answer in load.answers if getattr(answer[1], "status_code", 500) >= 500]
    assert len(failed) <= CLIENTS
    with httpx2.Client(timeout=PATIENCE) as client:
        again = [load.send(client, index) for index, _ in failed]
    answered = [answer for answer in load.answers if answer not in failed] + again
    assert [answer for answer in answered if not is_right(answer)] == []
    eventually(lambda: len(ray_form.replicas("ingress")) == 2)


def test_pictures_have_an_allocator_that_gives_back(ray_form):
    """What bounds the memory of processes that hold the pictures of requests; glibc reads it when they start."""
    for deployment in ("ingress", "preparation-ner", "preparation-re"):
        for pid in ray_form.replicas(deployment):
            environment = Path(f"/proc/{pid}/environ").read_text("utf-8").split("\0")
            assert {f"{name}={value}" for name, value in PICTURE_PROCESS.items()} <= set(environment)


def test_probes(service):
    assert httpx2.get(f"{service.url}/healthz").json() == {"status": "ok"}
    assert eventually(lambda: httpx2.get(f"{service.url}/readyz").status_code == 200)
