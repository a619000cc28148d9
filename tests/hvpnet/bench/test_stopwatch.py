"""Laps leave no gap, and a pipeline that is watched answers as before."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from hvpnet.bench.stopwatch import STAGES, Stopwatch
from hvpnet.bench.workload import Case, Workload
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet


@pytest.fixture
def tweets(ner_bundle: Path) -> list[Tweet]:
    return Workload(ner_bundle).tweets(Case(2, 12), 0)


class Made:
    """A pipeline of two runs of the vision network, as of many pictures, and one of the text network."""

    def __init__(self, pictures: int) -> None:
        self.backend = SimpleNamespace(encode_pictures=lambda: None, encode_text=lambda: None)
        self.pictures = pictures

    def prepare(self, tweet: object) -> object:
        return tweet

    def run(self, batch: list[object]) -> None:
        for _ in range(self.pictures):
            self.backend.encode_pictures()
        self.backend.encode_text()


def test_laps_leave_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages add up to all that has passed, however often each is lapped; others take no time."""
    times = iter([10.0, 11.0, 13.0, 16.0, 17.0, 20.0, 25.0, 31.0, 40.0, 100.0, 101.0, 103.0, 106.0, 110.0])
    monkeypatch.setattr("hvpnet.bench.stopwatch.perf_counter", times.__next__)
    pipeline = Made(pictures=2)
    stopwatch = Stopwatch(pipeline)
    stages = stopwatch.measure(["tweet"])  # from 10 to 40
    assert stages == {"prepare": 1, "normalise": 2 + 1 + 5, "vision": 3 + 3, "text": 6, "decode": 9}
    assert tuple(stages) == STAGES
    pipeline.pictures = 0
    assert stopwatch.measure(["tweet"]) == {"prepare": 1, "normalise": 2, "vision": 0, "text": 3, "decode": 4}


@pytest.mark.heavy
def test_every_stage_of_the_runtime_is_passed(ner_bundle: Path, tweets: list[Tweet]) -> None:
    with Pipeline.load(ner_bundle) as pipeline:
        stopwatch = Stopwatch(pipeline)
        first = stopwatch.measure(tweets)
        assert all(first[stage] > 0 for stage in STAGES)
        again = stopwatch.measure(tweets)
    assert again["vision"] == 0  # every picture was in the cache
    assert all(again[stage] > 0 for stage in STAGES if stage != "vision")


@pytest.mark.heavy
def test_a_watched_pipeline_answers_as_before(ner_bundle: Path, tweets: list[Tweet]) -> None:
    with Pipeline.load(ner_bundle) as pipeline:
        answers = pipeline(tweets)
        Stopwatch(pipeline).measure(tweets)
        assert pipeline(tweets) == answers
