from types import SimpleNamespace

import pytest

from hvpnet.bench.subjects import STAGES, Stopwatch


def test_laps_leave_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages add up to all that has passed, however often each is lapped; others take no time."""
    times = iter([10.0, 11.0, 13.0, 16.0, 20.0, 25.0, 31.0, 40.0, 42.0])
    monkeypatch.setattr("hvpnet.bench.subjects.time", SimpleNamespace(perf_counter=times.__next__))
    watch = Stopwatch()  # at 10
    for stage in ("prepare", "normalise", "vision", "vision", "text", "decode"):
        watch.lap(stage)
    assert watch.stages == {"prepare": 1, "normalise": 2, "vision": 7, "text": 5, "decode": 6}
    assert sum(watch.stages.values()) == 31 - 10
    another = Stopwatch()  # at 40
    another.lap("vision")
    assert another.stages == dict.fromkeys(STAGES, 0.0) | {"vision": 2}
