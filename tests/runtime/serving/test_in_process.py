"""The batcher and the extractor of one process: what shares a batch, what is stopped, when a backend is given up."""

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from waiting import eventually

from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.serving import health
from hvpnet_runtime.serving.batcher import Batcher
from hvpnet_runtime.serving.errors import StuckError, UnavailableError
from hvpnet_runtime.serving.in_process import InProcess, _Request
from hvpnet_runtime.serving.metrics import Metrics, PrometheusInstruments

PATIENCE = 60


class FakePipeline:
    """Answers tweets with themselves, when it is let; `fails` says how often it does not answer at all."""

    def __init__(self, fails=0, lanes=1):
        self.batches, self.fails, self.closed = [], fails, False
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        self.cache = SimpleNamespace(hits=0, misses=0)
        self.backend = SimpleNamespace(name="fake", lanes=lanes)

    def run(self, tweets):
        self.cache.hits += len(tweets)
        self.begun.release()
        assert self.go_on.wait(PATIENCE)
        if self.fails:
            self.fails -= 1
            raise BackendError("the device is lost")
        self.batches.append(list(tweets))
        return list(tweets)

    def prepare(self, tweet):
        return "probe"

    def close(self):
        self.closed = True


class InThreads(Batcher):
    """Whoever submits runs, too, as the service's threads do."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.threads = ThreadPoolExecutor(9)

    def submit(self, tweets):
        futures = super().submit(tweets)
        self.threads.submit(self.run)
        return futures


@pytest.fixture
def batcher(request, monkeypatch):
    monkeypatch.setattr(health, "_PAUSE_SECONDS", 0)
    pipeline, gave_up = FakePipeline(getattr(request, "param", 0)), []
    metrics = Metrics(PrometheusInstruments(CollectorRegistry()))
    made = InThreads("ner", pipeline, 4, metrics, gave_up.append)
    yield made, pipeline, gave_up
    pipeline.go_on.set()
    made.threads.shutdown()
    made.close()
    assert pipeline.closed


def results(futures):
    return [result for future in futures for result in future.result(PATIENCE)]


def test_what_waits_while_the_backend_is_busy_is_one_batch(batcher):
    batcher, pipeline, _ = batcher
    first = batcher.submit(["a"])
    assert pipeline.begun.acquire(timeout=PATIENCE)  # an idle backend runs what comes at once
    later = [batcher.submit(tweets) for tweets in (["b"], ["c", "d"], ["e", "f"], ["g", "h", "i", "j", "k"])]
    pipeline.go_on.set()
    assert results(first) == ["a"]
    assert [results(futures) for futures in later] == [["b"], ["c", "d"], ["e", "f"], ["g", "h", "i", "j", "k"]]
    assert pipeline.batches == [["a"], ["b", "c", "d"], ["e", "f"], ["g", "h", "i", "j"], ["k"]]


def test_a_backend_with_two_lanes_has_two_batches_under_way():
    """What comes meanwhile is one batch, and the cache's hits are counted once, whichever batch they are of."""
    pipeline, registry = FakePipeline(lanes=2), CollectorRegistry()
    batcher = InThreads("ner", pipeline, 4, Metrics(PrometheusInstruments(registry)), pytest.fail)
    futures = []
    for tweet in ("a", "b"):
        futures.append(batcher.submit([tweet]))
        assert pipeline.begun.acquire(timeout=PATIENCE)  # though none has come back
    futures += [batcher.submit([tweet]) for tweet in ("c", "d")]
    assert not pipeline.begun.acquire(timeout=0.2)
    assert batcher.stuck(0)
    pipeline.go_on.set()
    assert [results(each) for each in futures] == [["a"], ["b"], ["c"], ["d"]]
    batcher.threads.shutdown()
    assert sorted(pipeline.batches) == [["a"], ["b"], ["c", "d"]]
    assert not batcher.stuck(0)
    assert registry.get_sample_value("hvpnet_cache_hits_total", {"bundle": "ner"}) == 4


def test_a_request_of_many_batches_takes_turns_with_others(batcher):
    batcher, pipeline, _ = batcher
    futures = [batcher.submit(["first"])]
    assert pipeline.begun.acquire(timeout=PATIENCE)
    futures += [batcher.submit(tweets) for tweets in (list("abcdefghijkl"), ["x"], list("ABCDEF"))]
    pipeline.go_on.set()
    assert [results(each) for each in futures[1:]] == [list("abcdefghijkl"), ["x"], list("ABCDEF")]
    assert ["".join(batch) for batch in pipeline.batches] == ["first", "abcd", "x", "ABCD", "efgh", "EF", "ijkl"]


def test_a_bundle_is_warmed_up_before_it_serves(settings, monkeypatch):
    warmed = []
    monkeypatch.setattr(
        Pipeline, "warm_up", lambda pipeline, shapes=None: warmed.append((pipeline.bundle.path, shapes))
    )
    extractor = InProcess(settings, pytest.fail)
    extractor.close()
    assert warmed == [(path, None) for path in settings.bundles.values()]


def test_what_was_cancelled_is_not_run(batcher):
    batcher, pipeline, _ = batcher
    running = batcher.submit(["a"])
    assert pipeline.begun.acquire(timeout=PATIENCE)
    (dropped,), kept = batcher.submit(["b"]), batcher.submit(["c"])
    assert dropped.cancel()
    pipeline.go_on.set()
    assert results(running) + results(kept) == ["a", "c"]
    assert pipeline.batches == [["a"], ["c"]]


@pytest.mark.parametrize("batcher", [1], indirect=True)
def test_a_backend_that_failed_once_goes_on(batcher):
    batcher, pipeline, gave_up = batcher
    pipeline.go_on.set()
    with pytest.raises(BackendError, match="the device is lost"):
        results(batcher.submit(["a"]))
    assert results(batcher.submit(["b"])) == ["b"]
    assert gave_up == []


@pytest.mark.parametrize("batcher", [4], indirect=True)
def test_a_backend_that_answers_nothing_any_more_is_given_up(batcher):
    batcher, pipeline, gave_up = batcher
    first = batcher.submit(["a"])
    assert pipeline.begun.acquire(timeout=PATIENCE)
    second = batcher.submit(["b"])
    pipeline.go_on.set()
    with pytest.raises(BackendError, match="the device is lost"):
        results(first)
    with pytest.raises(UnavailableError, match="the backend of ner failed for good: the device is lost"):
        results(second)
    assert eventually(lambda: gave_up)
    assert str(gave_up[0]) == "the backend of ner failed for good: the device is lost"
    with pytest.raises(UnavailableError, match="the backend of ner failed for good: the device is lost"):
        batcher.submit(["b"])


def test_a_run_that_does_not_come_back_is_seen(batcher):
    batcher, pipeline, _ = batcher
    assert not batcher.stuck(0)
    futures = batcher.submit(["a"])
    assert pipeline.begun.acquire(timeout=PATIENCE)
    assert batcher.stuck(0)
    assert not batcher.stuck(PATIENCE)
    pipeline.go_on.set()
    results(futures)
    assert eventually(lambda: not batcher.stuck(0))


@pytest.mark.parametrize("batcher", [1], indirect=True)
def test_a_backend_that_hangs_after_an_error_is_seen(batcher):
    """It is asked whether it answers at all, and that run counts as well."""
    batcher, pipeline, _ = batcher
    pipeline.go_on.set()
    answer, hang = pipeline.run, threading.Event()

    def fail_and_hang(tweets):
        if pipeline.fails:
            return answer(tweets)
        assert hang.wait(PATIENCE)
        return list(tweets)

    pipeline.run = fail_and_hang
    with pytest.raises(BackendError):
        results(batcher.submit(["a"]))
    assert batcher.stuck(0)
    hang.set()
    assert eventually(lambda: not batcher.stuck(0))


def test_a_backend_that_does_not_come_back_does_not_hold_the_end(settings, monkeypatch):
    """What no thread has begun with is refused as what came too late."""
    extractor, hang, begun = InProcess(settings, pytest.fail), threading.Event(), threading.Event()
    extractor._threads = ThreadPoolExecutor(1)

    def run(tweets):
        begun.set()
        assert hang.wait(PATIENCE)
        raise BackendError("late")

    monkeypatch.setattr(extractor._batchers["ner"]._pipeline, "run", run)

    async def ask():
        work = asyncio.create_task(extractor.extract("ner", [Tweet(text="a")]))
        await asyncio.to_thread(begun.wait)
        waiting = asyncio.create_task(extractor.relate("ner", "re", [Tweet(text="a")]))
        await asyncio.sleep(0)
        with pytest.raises(StuckError, match="a backend has not come back from a run"):
            extractor.close(0.05)
        with pytest.raises(UnavailableError, match="the service is stopping"):
            await waiting
        with pytest.raises(UnavailableError, match="the service is stopping"):
            await extractor.extract("ner", [Tweet(text="a")])
        hang.set()
        with pytest.raises(BackendError, match="late"):
            await work

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))


def test_what_is_cancelled_between_its_preparation_and_its_run(batcher):
    batcher, pipeline, _ = batcher
    running = batcher.submit(["a"])
    assert pipeline.begun.acquire(timeout=PATIENCE)
    request = _Request([])
    request.cancel()
    request.follow(batcher.submit(["b"]), request.answers.set_result)
    pipeline.go_on.set()
    assert results(running) == ["a"]
    with pytest.raises(CancelledError):
        request.answers.result(PATIENCE)
    assert eventually(lambda: not batcher.stuck(0))
    assert pipeline.batches == [["a"]]


def test_cancelled_preparation_stops_before_the_next_tweet(settings, monkeypatch):
    """And what was cancelled ends only then, so that its share of the service is in use until it is not."""
    extractor = InProcess(settings, pytest.fail)
    prepared, begun, go_on = [], threading.Event(), threading.Event()

    def prepare(number, tweet):
        prepared.append(number)
        begun.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(extractor._preparations["ner"], "_outcome", prepare)

    async def scenario():
        work = asyncio.create_task(extractor.extract("ner", [Tweet(text="a", id=row) for row in range(3)]))
        await asyncio.to_thread(begun.wait)
        work.cancel()
        done, _ = await asyncio.wait([work], timeout=0.05)
        assert not done
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))
    extractor.close()
    assert prepared == [0]
