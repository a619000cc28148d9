from hvpnet.bench.subjects import STAGES, Stopwatch


def test_laps_leave_no_gap() -> None:
    """The stages add up to all that has passed, however often each is lapped."""
    times = iter([0.0, 10.0, 11.0, 13.0, 16.0, 20.0, 25.0, 31.0])
    watch = Stopwatch(lambda: next(times))
    watch.restart()  # at 10
    for stage in ("prepare", "normalise", "vision", "vision", "text", "decode"):
        watch.lap(stage)
    assert watch.stages == {"prepare": 1, "normalise": 2, "vision": 7, "text": 5, "decode": 6}
    assert sum(watch.stages.values()) == 31 - 10


def test_restart_forgets() -> None:
    times = iter([0.0, 1.0, 5.0, 7.0])
    watch = Stopwatch(lambda: next(times))
    watch.lap("text")
    watch.restart()
    watch.lap("vision")
    assert watch.stages == dict.fromkeys(STAGES, 0.0) | {"vision": 2}
