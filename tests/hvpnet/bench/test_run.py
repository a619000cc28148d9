"""The cases, what they are foreseen to cost, and what is said of that."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvpnet.bench.budget import Costs, Schedule
from hvpnet.bench.candidates import BASELINE, COMPILED, Candidate
from hvpnet.bench.run import announcement, first_round, plan
from hvpnet.bench.workers import WorkerError
from hvpnet.bench.workload import Case

FAST, GRAPH = Candidate("onnxruntime-cpu", "fp32"), Candidate(COMPILED, "fp32")
FIRST, LARGE = Case(1, 80), Case(8, 80)


def made(imports: float, load: float, first_answer: float, second: float) -> Any:
    """A worker that has started, and takes so many seconds for its second answer."""
    start = {"imports": imports, "load": load, "first_answer": first_answer, "peak_bytes": None}
    return SimpleNamespace(start=start, measure=lambda case, number: {"vision": second / 2, "text": second / 2})


def test_costs_are_those_of_starts_and_second_answers() -> None:
    workers = {BASELINE: made(2, 3, 0.5, 0.25), FAST: made(0.5, 1, 4, 1), GRAPH: made(2, 3, 2, 0.125)}
    costs = first_round(workers, FIRST, {}, seconds=3)
    assert costs == Costs(
        FIRST,
        cold={BASELINE: 0.5, FAST: 4, GRAPH: 2},
        warm={BASELINE: 0.25, FAST: 4, GRAPH: 0.125},  # the fast one had taken more than all seconds, so not again
        start=(2 + 3 + 0.5) + (0.5 + 1 + 4),  # what compiles is not started afresh
    )


def test_a_candidate_that_fails_at_once_is_passed_over() -> None:
    def fail(case: Case, number: int) -> dict[str, float]:
        raise WorkerError(FAST, "out of memory")

    workers, passed_over = {BASELINE: made(2, 3, 0.5, 0.25), FAST: made(1, 1, 1, 1)}, dict[str, str]()
    workers[FAST].measure = fail
    costs = first_round(workers, FIRST, passed_over, seconds=3)
    assert (dict(costs.warm), costs.start) == ({BASELINE: 0.25}, 5.5)
    assert passed_over == {FAST.name: "out of memory"}


def test_what_is_said_beforehand() -> None:
    costs = Costs(FIRST, {}, {}, start=7)
    everything = Schedule([[(BASELINE, FIRST)], [(BASELINE, LARGE)]], [10, 20.4], 3, {})
    assert announcement(everything, costs, 0) == "timing takes about 51 seconds"
    assert announcement(everything, costs, 12) == "timing takes about 51 seconds, scoring after it at most about 12"
    left_out = {FIRST.name: ["a", "b"], LARGE.name: ["a", "b", "c"]}
    less = Schedule([[(BASELINE, FIRST)], []], [10, 0], 0, left_out)
    assert announcement(less, costs, 0) == (
        "timing takes about 10 seconds. More --seconds are needed for batch 1, 80 tokens, all new (a, b); "
        "batch 8, 80 tokens, all new; fresh starts"
    )


def test_plan() -> None:
    groups = plan(max_length=128, pictures=4, grounds=False)
    kinds = ["all new", "one new, three seen", "one new, no objects", "all seen"]
    assert groups[0] == [Case(1, 80, kind) for kind in kinds]
    assert [len(group) for group in groups[1:]] == [1, 1, 1, 1]
    assert plan(128, 4, grounds=True) == [[*groups[0], Case(1, 80, "one new, objects found")], *groups[1:]]
    assert [group[0] for group in groups[1:]] == [Case(1, 32), Case(1, 128), Case(8, 80), Case(32, 80)]


@pytest.mark.parametrize(("max_length", "lengths"), [(80, [80, 32]), (64, [64, 32]), (20, [20])])
def test_lengths_are_capped(max_length: int, lengths: list[int]) -> None:
    cases = [group[0] for group in plan(max_length, pictures=4, grounds=True) if group[0].batch == 1]
    assert [case.length for case in cases] == lengths


@pytest.mark.parametrize("pictures", [0, 3])
def test_models_that_do_not_read_all_four_pictures(pictures: int) -> None:
    assert plan(128, pictures, grounds=False)[0] == [Case(1, 80)]


def test_a_model_of_objects_alone_with_a_grounder() -> None:
    assert plan(128, 3, grounds=True)[0] == [Case(1, 80), Case(1, 80, "one new, objects found")]
