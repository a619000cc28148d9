"""What is timed and what comes of it, on candidates whose times are made up."""

from collections.abc import Mapping

import pytest

from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.run import measure, plan
from hvpnet.bench.statistics import Ratio
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.workers import WorkerError
from hvpnet.bench.workload import Case

FAST = Candidate("onnxruntime-cpu", "fp32")
NEW, SEEN, LARGE = Case(1, 80), Case(1, 80, "all seen"), Case(8, 80)
GROUPS = [[NEW, SEEN], [LARGE]]


class Made:
    """Takes `seconds` of a case for every stage, more in later rounds; fails at what it has no time for."""

    def __init__(
        self, candidate: Candidate, seconds: Mapping[Case, float], log: list[tuple[Candidate, Case, int]]
    ) -> None:
        self.candidate, self.seconds, self.log = candidate, seconds, log

    def measure(self, case: Case, number: int) -> dict[str, float]:
        self.log.append((self.candidate, case, number))
        if case not in self.seconds:
            raise WorkerError(self.candidate, "out of memory")
        return dict.fromkeys(STAGES, self.seconds[case] * (1 + number % 2))


@pytest.fixture
def log() -> list[tuple[Candidate, Case, int]]:
    return []


def run(log, baseline: Mapping[Case, float], fast: Mapping[Case, float]):
    workers = {BASELINE: Made(BASELINE, baseline, log), FAST: Made(FAST, fast, log)}
    failed, said = {}, []
    groups = list(measure(workers, GROUPS, 0, failed, said.append))
    return [each for group in groups for each in group], failed, said


def test_ratios_are_of_the_same_rounds(log) -> None:
    measurements, failed, _ = run(log, {NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0})
    assert not failed
    found = {(each.candidate, each.case): each for each in measurements}
    assert set(found) == {(BASELINE, NEW), (FAST, NEW), (FAST, SEEN), (BASELINE, LARGE), (FAST, LARGE)}
    assert found[FAST, NEW].speedup == Ratio(*[pytest.approx(4)] * 4)
    assert found[FAST, NEW].graphs_speedup == Ratio(*[pytest.approx(4)] * 4)
    assert found[FAST, SEEN].speedup.median == pytest.approx(20)  # to eager, which computes what it has seen
    assert found[FAST, SEEN].share.median == pytest.approx(0.2)
    assert found[FAST, NEW].share.median == 1
    assert found[FAST, LARGE].speedup.median == pytest.approx(3)


def test_times_are_milliseconds(log) -> None:
    measurements, _, _ = run(log, {NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0})
    fast = next(each for each in measurements if (each.candidate, each.case) == (FAST, NEW))
    assert fast.samples == pytest.approx([1000, 500, 1000])  # five stages of 0.2 and 0.1 s
    assert (fast.total.minimum, fast.graphs.minimum) == pytest.approx((500, 200))
    assert fast.stages == pytest.approx(dict.fromkeys(STAGES, 200))


def test_turns_and_round_numbers(log) -> None:
    run(log, {NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0})
    turn = [(BASELINE, NEW), (FAST, NEW), (FAST, SEEN)]
    assert [each[:2] for each in log] == turn * 4 + [(BASELINE, LARGE), (FAST, LARGE)] * 4
    numbers = [number for candidate, _, number in log if candidate == BASELINE]
    assert len(set(numbers)) == len(numbers) == 8  # no group shows the pictures of another as new


def test_a_candidate_that_fails_is_left_out_from_there_on(log) -> None:
    measurements, failed, _ = run(log, {NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02})
    assert failed == {FAST.name: "batch 8, 80 tokens, all new: out of memory"}
    assert [(each.candidate, each.case) for each in measurements] == [
        (BASELINE, NEW),
        (FAST, NEW),
        (FAST, SEEN),
        (BASELINE, LARGE),
    ]


def test_without_the_baseline_there_is_no_benchmark(log) -> None:
    with pytest.raises(WorkerError, match="eager fp32: out of memory"):
        run(log, {NEW: 0.4}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0})


def test_it_says_how_long_the_rest_takes(log) -> None:
    """Four rounds of the large batch, each as long as eight of all that was timed of one tweet in the first round."""
    *_, said = run(log, {NEW: 0.4, LARGE: 3.0}, {NEW: 0.1, SEEN: 0.02, LARGE: 1.0})
    first = next(number for *_, number in log) + 1
    seconds = 4 * 8 * 5 * (0.4 + 0.1 + 0.02) * (1 + first % 2)
    assert said[0] == f"timing {NEW.name}; {SEEN.name}; all cases from here on take at least 0 seconds"
    assert said[1] == f"timing {LARGE.name}; all cases from here on take about {seconds:.0f} seconds"


def test_plan() -> None:
    groups = plan(max_length=128, pictures=4)
    assert [len(group) for group in groups] == [4, 1, 1, 1, 1]
    assert groups[0][0] == Case(1, 80, "all new")
    assert [group[0] for group in groups[1:]] == [Case(1, 32), Case(1, 128), Case(8, 80), Case(32, 80)]


@pytest.mark.parametrize(("max_length", "lengths"), [(80, [80, 32]), (64, [64, 32]), (20, [20])])
def test_lengths_are_capped(max_length: int, lengths: list[int]) -> None:
    cases = [group[0] for group in plan(max_length, pictures=4) if group[0].batch == 1]
    assert [case.length for case in cases] == lengths


@pytest.mark.parametrize("pictures", [0, 3])
def test_models_that_do_not_read_all_four_pictures(pictures: int) -> None:
    assert plan(128, pictures)[0] == [Case(1, 80)]
