"""What is measured and what comes of it, on candidates whose times are made up, and on a clock of our own."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hvpnet.bench.budget import Costs
from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.measure import measure
from hvpnet.bench.statistics import Ratio
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.workers import WorkerError
from hvpnet.bench.workload import Case

FAST = Candidate("onnxruntime-cpu", "fp32")
NEW, SEEN, LARGE = Case(1, 80), Case(1, 80, "all seen"), Case(8, 80)
GROUPS = [[NEW, SEEN], [LARGE]]
LOG = list[tuple[Candidate, Case, int]]
TIMES: list[Mapping[Case, float]] = [{NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0}]
"""Seconds of a stage by case, of the baseline and of the fast one, in even rounds; in odd ones it is twice as long."""

COSTS = Costs(NEW, cold={BASELINE: 2, FAST: 0.5}, warm={BASELINE: 2, FAST: 0.5}, start=0)
"""The least of the first group are 8, 2 and 2 seconds, of the other 64 and 16."""


class Clock:
    """Only moves when a candidate answers."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hvpnet.bench.statistics.time.perf_counter", clock)
    return clock


class Made:
    """Takes its times; fails at what it has none for, and whenever `trouble` does."""

    peak_bytes = 7

    def __init__(
        self,
        candidate: Candidate,
        seconds: Mapping[Case, float],
        log: LOG,
        clock: Clock,
        trouble: Callable[[LOG], None],
    ) -> None:
        self.candidate, self.seconds, self.log, self.clock, self.trouble = candidate, seconds, log, clock, trouble

    def measure(self, case: Case, number: int) -> dict[str, float]:
        self.log.append((self.candidate, case, number))
        self.trouble(self.log)
        if case not in self.seconds:
            raise WorkerError(self.candidate, "out of memory")
        answer = dict.fromkeys(STAGES, self.seconds[case] * (1 + number % 2)) | {"ground": 0.0}
        self.clock.now += sum(answer.values())
        return answer


class Run:
    """A run of `measure`, within so many seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.log, self.said, self.kept = clock, LOG(), list[str](), list[int]()
        self.results: dict[str, Any] = {"passed_over": {}, "left_out": {}, "measurements": []}

    def __call__(
        self, times: Any = TIMES, seconds: float = 400, trouble: Callable[[LOG], None] = lambda log: None
    ) -> dict[tuple[Candidate, Case], Any]:
        workers: Any = {
            candidate: Made(candidate, own, self.log, self.clock, trouble)
            for candidate, own in zip((BASELINE, FAST), times, strict=True)
        }
        keep = lambda results: self.kept.append(len(results["measurements"]))  # noqa: E731
        try:
            measure(workers, GROUPS, COSTS, self.clock.now + seconds, self.results, self.said.append, keep)
        finally:
            self.found = {(each.candidate, each.case): each for each in self.results["measurements"]}
        return self.found


@pytest.fixture
def run(clock: Clock) -> Run:
    return Run(clock)


def test_ratios_are_of_the_same_rounds(run: Run) -> None:
    found = run()
    assert run.results["passed_over"] == run.results["left_out"] == {}
    assert set(found) == {(BASELINE, NEW), (FAST, NEW), (FAST, SEEN), (BASELINE, LARGE), (FAST, LARGE)}
    assert found[FAST, NEW].speedup == Ratio(*[pytest.approx(4)] * 4)
    assert found[FAST, NEW].graphs_speedup == Ratio(*[pytest.approx(4)] * 4)
    assert found[FAST, SEEN].speedup.median == pytest.approx(20)  # to eager, which computes what it has seen
    assert found[FAST, SEEN].share.median == pytest.approx(0.2)
    assert found[FAST, NEW].share.median == 1
    assert found[FAST, LARGE].speedup.median == pytest.approx(3)
    assert run.kept == [3, 5]
    assert run.results["peak_bytes"] == {BASELINE.name: 7, FAST.name: 7}


def test_times_are_milliseconds(run: Run) -> None:
    fast = run(seconds=0)[FAST, NEW]
    assert fast.samples == pytest.approx([1000, 500, 1000])  # five stages of 0.2 and 0.1 s
    assert (fast.total.minimum, fast.graphs.minimum) == pytest.approx((500, 200))
    assert fast.stages == pytest.approx(dict.fromkeys(STAGES, 200) | {"ground": 0})


def test_turns_and_round_numbers(run: Run) -> None:
    run()
    turn = [(BASELINE, NEW), (FAST, NEW), (FAST, SEEN)]
    large = [(BASELINE, LARGE), (FAST, LARGE)]
    rounds = [each[:2] for each in run.log]
    first = rounds.index((BASELINE, LARGE))
    assert rounds[:first] == turn * (first // 3)
    assert rounds[first:] == large * ((len(rounds) - first) // 2)
    assert len(rounds) - first >= 2 * 4
    numbers = [number for candidate, _, number in run.log if candidate == BASELINE]
    assert len(set(numbers)) == len(numbers)  # no group shows the pictures of another as new


def test_a_candidate_that_fails_is_left_out_from_there_on(run: Run) -> None:
    found = run([TIMES[0], {NEW: 0.1, SEEN: 0.02}], seconds=400)
    assert run.results["passed_over"] == {FAST.name: "batch 8, 80 tokens, all new: out of memory"}
    assert list(found) == [(BASELINE, NEW), (FAST, NEW), (FAST, SEEN), (BASELINE, LARGE)]


def test_without_the_baseline_there_is_no_benchmark(run: Run) -> None:
    with pytest.raises(WorkerError, match="eager fp32: out of memory"):
        run([{NEW: 0.4}, TIMES[1]], seconds=400)
    assert len(run.found) == 3


def test_what_does_not_fit_is_left_out_and_named(run: Run) -> None:
    assert list(run(seconds=11)) == [(BASELINE, NEW), (FAST, NEW)]
    assert run.results["left_out"] == {SEEN.name: [FAST.name], LARGE.name: [BASELINE.name, FAST.name]}
    assert run.said == [f"timing {NEW.name}, 11 of the 11 seconds for all cases from here on"]


def test_it_keeps_within_the_seconds_though_answers_take_longer_than_the_first(run: Run) -> None:
    """The large batch takes five times as long as foreseen, which the round to warm up shows."""
    found = run([{NEW: 0.4, LARGE: 16.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 4.0}], seconds=300)
    assert list(found) == [(BASELINE, NEW), (FAST, NEW), (FAST, SEEN)]
    assert run.results["left_out"] == {LARGE.name: [BASELINE.name, FAST.name]}
    assert len([case for _, case, _ in run.log if case == LARGE]) < 2 * 4


@pytest.mark.parametrize(("answers", "rounds"), [(4, 0), (6, 1), (13, 3)])
def test_an_interrupt_leaves_whole_rounds(run: Run, answers: int, rounds: int) -> None:
    """A round is three answers, and the first one does not count."""

    def interrupt(log: LOG) -> None:
        if len(log) > answers:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trouble=interrupt)
    assert [len(each.samples) for each in run.found.values()] == [rounds] * (3 if rounds else 0)
    assert run.kept == [3 if rounds else 0]
