"""Laps leave no gap, and a pipeline that is watched answers as before."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_grounder import add_grounder

from hvpnet.bench.stopwatch import STAGES, Stopwatch
from hvpnet.bench.workload import FOUND, Case, Workload
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet


@pytest.fixture
def tweets(ner_bundle: Path) -> list[Tweet]:
    return Workload(ner_bundle).tweets(Case(2, 12), 0)


class Made:
    """A pipeline that runs the vision network as often as there are pictures, and the text network once."""

    def __init__(self, pictures: int, *, grounds: bool = False) -> None:
        self.backend = SimpleNamespace(encode_pictures=lambda: None, encode_text=lambda: None)
        self.finder = SimpleNamespace(grounder=SimpleNamespace(find_objects=lambda: None)) if grounds else None
        self.pictures = pictures

    def prepare(self, tweet: object) -> object:
        if self.finder is not None:
            self.finder.grounder.find_objects()
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
    assert stages == {"prepare": 1, "ground": 0, "normalise": 2 + 1 + 5, "vision": 3 + 3, "text": 6, "decode": 9}
    assert tuple(stages) == STAGES
    pipeline.pictures = 0
    again = {"prepare": 1, "ground": 0, "normalise": 2, "vision": 0, "text": 3, "decode": 4}
    assert stopwatch.measure(["tweet"]) == again


def test_grounding_is_a_stage_between_two_of_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 14.0, 16.0, 17.0, 20.0, 25.0])
    monkeypatch.setattr("hvpnet.bench.stopwatch.perf_counter", times.__next__)
    stages = Stopwatch(Made(pictures=0, grounds=True)).measure(["tweet"])
    assert stages == {"prepare": 1 + 2, "ground": 3, "normalise": 1, "vision": 0, "text": 3, "decode": 5}


@pytest.mark.heavy
def test_every_stage_of_the_runtime_is_passed(ner_bundle: Path, tweets: list[Tweet]) -> None:
    with Pipeline.load(ner_bundle) as pipeline:
        stopwatch = Stopwatch(pipeline)
        first = stopwatch.measure(tweets)
        assert all(first[stage] > 0 for stage in STAGES if stage != "ground")
        again = stopwatch.measure(tweets)
    assert first["ground"] == again["ground"] == 0  # there is no grounder
    assert again["vision"] == 0  # every picture was in the cache
    assert all(again[stage] > 0 for stage in STAGES if stage not in ("ground", "vision"))


@pytest.mark.heavy
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_new_picture_is_grounded_and_a_seen_one_is_not(ner_bundle: Path, tmp_path: Path, precision: str) -> None:
    bundle = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), precision=(precision,))
    workload = Workload(bundle)
    with Pipeline.load(bundle) as pipeline:
        assert pipeline.finder is not None
        assert pipeline.finder.grounder.precision == precision
        stopwatch = Stopwatch(pipeline)
        assert stopwatch.measure(workload.tweets(Case(1, 12), 0))["ground"] == 0  # its objects are given
        tweets = workload.tweets(Case(1, 12, FOUND), 0)
        new = stopwatch.measure(tweets)
        assert all(new[stage] > 0 for stage in STAGES)
        assert stopwatch.measure(tweets)["ground"] == 0
        assert pipeline.finder.misses == 1


@pytest.mark.heavy
def test_a_watched_pipeline_answers_as_before(ner_bundle: Path, tweets: list[Tweet]) -> None:
    with Pipeline.load(ner_bundle) as pipeline:
        answers = pipeline(tweets)
        Stopwatch(pipeline).measure(tweets)
        assert pipeline(tweets) == answers
