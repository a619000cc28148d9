"""Time every candidate on every case, in turns and within a time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeAlias

from hvpnet.bench.budget import ROUNDS, Costs, Way, by_case, schedule
from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.statistics import MOST, Ratio, Summary, take_turns
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.workers import Worker, WorkerError
from hvpnet.bench.workload import ALL_NEW, Case
from hvpnet_runtime.types import Progress

Results: TypeAlias = dict[str, Any]
"""What was measured: `machine`, `model`, `data`, each `Measurement` and each `Accuracy`; by name of the
candidate, `starts` of fresh processes (see `Worker`), `start_speedups` (eager FP32's imports and loading over its own),
`peak_bytes` after all cases, and why it was `passed_over`, from the start or from some case on; by name of the case,
the candidates that were `left_out` for want of time. `finished` says whether anything was to follow."""

Keep: TypeAlias = Callable[[Results], None]
"""What is called whenever there are more results."""


@dataclass(frozen=True)
class Measurement:
    """What one candidate took for one case, in milliseconds per answer of the whole batch.

    `total` is from picture bytes and words to entities, `graphs` the two networks alone, `stages` are medians. Both
    speed-ups are eager FP32 with all pictures new over this, `share` is this over the same candidate with all pictures
    new, always in the same rounds. `samples` are the whole answers, round by round.
    """

    candidate: Candidate
    case: Case
    total: Summary
    graphs: Summary
    stages: Mapping[str, float]
    speedup: Ratio
    graphs_speedup: Ratio
    share: Ratio
    samples: Sequence[float]


def ways_of(
    candidates: Mapping[Candidate, object], groups: Sequence[Sequence[Case]], passed_over: Mapping[str, str]
) -> list[list[Way]]:
    """What takes turns in a group; PyTorch computes pictures that it has seen again, so it is only given new ones."""
    return [
        [
            (candidate, case)
            for candidate in candidates
            for case in group
            if candidate.name not in passed_over and (case.pictures == ALL_NEW or not candidate.is_pytorch)
        ]
        for group in groups
    ]


def measure(
    workers: Mapping[Candidate, Worker],
    groups: Sequence[Sequence[Case]],
    costs: Costs,
    end: float,
    results: Results,
    say: Progress,
    keep: Keep,
) -> None:
    """Time group by group; what is measured, left out and passed over is noted in the results, and kept.

    A candidate that fails is passed over from there on. What an interrupt cuts short is kept up to its last round.

    Args:
        workers: the candidates.
        groups: cases that take turns, the most important first, each beginning with all pictures new.
        costs: what fits is planned by, again before every group.
        end: when to be done, as `time.perf_counter` counts; only the first case is timed even if that comes before.
        results: what is added to.
        say: told what begins.
        keep: called after every group.

    Raises:
        WorkerError: the baseline failed.
    """
    waiting, passed_over, before = [*groups], results["passed_over"], dict[str, list[str]]()
    first = 1
    while waiting:
        planned = schedule(ways_of(workers, waiting, passed_over), costs, end - time.perf_counter())
        ways, seconds, left_out = planned.groups[0], planned.seconds[0], planned.left_out
        results["left_out"] = {**before, **left_out}
        names = "; ".join(dict.fromkeys(case.name for _, case in ways))
        if ways:
            say(f"timing {names}, {seconds:.0f} of the {sum(planned.seconds):.0f} seconds for all cases from here on")
        first += 1 + MOST  # so that no group shows the pictures of another as new, nor of itself before a failure
        limit = float("inf") if waiting[0] is groups[0] else end - time.perf_counter()
        calls = {(candidate, case): partial(workers[candidate].measure, case) for candidate, case in ways}
        rounds: list[Mapping[Way, dict[str, float]]] = []
        with passing_over(passed_over, f"{names}: "):
            try:
                rounds.extend(take_turns(calls, seconds, least=ROUNDS, first=first, limit=limit))  # one by one
            except KeyboardInterrupt:
                results["measurements"] += _evaluate(rounds)
                keep(results)
                raise
            if len(rounds) < ROUNDS:  # an answer takes longer than the first ones let expect
                left_out, rounds = by_case(ways_of(workers, waiting[:1], passed_over)[0]), []
            before |= {case.name: left_out[case.name] for case in waiting.pop(0) if case.name in left_out}
            results["left_out"] |= before
            results["measurements"] += _evaluate(rounds)
            results["peak_bytes"] = {candidate.name: worker.peak_bytes for candidate, worker in workers.items()}
            keep(results)


@contextmanager
def passing_over(passed_over: dict[str, str], when: str = "") -> Iterator[None]:
    """Note which candidate fails in here, and why; the baseline may not."""
    try:
        yield
    except WorkerError as error:
        if error.candidate == BASELINE:
            raise
        passed_over[error.candidate.name] = when + error.reason


def _evaluate(rounds: Sequence[Mapping[Way, dict[str, float]]]) -> list[Measurement]:
    """Measurements of the rounds of a group, whose baseline with all pictures new is their first way."""
    if not rounds:
        return []
    timings = {way: [taken[way] for taken in rounds] for way in rounds[0]}
    totals = {way: [1000 * sum(each.values()) for each in taken] for way, taken in timings.items()}
    graphs = {way: [1000 * (each["vision"] + each["text"]) for each in taken] for way, taken in timings.items()}
    _, new = baseline = next(iter(timings))
    return [
        Measurement(
            *(candidate, case, Summary.of(total), Summary.of(graphs[candidate, case])),
            stages={stage: 1000 * median(each[stage] for each in timings[candidate, case]) for stage in STAGES},
            speedup=Ratio.of(totals[baseline], total),
            graphs_speedup=Ratio.of(graphs[baseline], graphs[candidate, case]),
            share=Ratio.of(total, totals[candidate, new]),
            samples=total,
        )
        for (candidate, case), total in totals.items()
    ]
