"""Which requests are timed, in what order, and what comes out for every variant."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from statistics import median
from typing import Literal, Protocol, TypeAlias, get_args

from hvpnet.bench.interleave import Budget, interleave
from hvpnet.bench.statistics import Ratio, Summary
from hvpnet.bench.stopwatch import STAGES, graph_seconds
from hvpnet.bench.variants import BASELINE, Variant
from hvpnet.bench.workers import WorkerError
from hvpnet.bench.workload import OBJECTS, Case, Pictures

LENGTH = 80
"""Tokens of a tweet, save where the length is varied; fewer if the bundle takes no more."""

LENGTHS = (32, 128)
BATCHES = (8, 32)

_WARM_UP = 1

Topic: TypeAlias = Literal["pictures", "length", "batch"]
Timings: TypeAlias = dict[tuple[Variant, Case], list[dict[str, float]]]
"""Seconds by stage, round by round."""


class Measurable(Protocol):
    """A loaded variant; see `Worker`."""

    def measure(self, case: Case, number: int) -> dict[str, float]:
        """Seconds by stage of one answer."""
        ...


@dataclass(frozen=True)
class Group:
    """Cases that take turns; their timings pair up round by round.

    Attributes:
        topic: what they vary, from one tweet of `LENGTH` tokens with four new pictures.
        cases: the first has all pictures new.
    """

    topic: Topic
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """For messages."""
        return "; ".join(case.name for case in self.cases)


@dataclass(frozen=True)
class Measurement:
    """What one variant took for one case; milliseconds per answer of the whole batch.

    Attributes:
        variant: which.
        topic: of its group.
        case: which.
        total: from picture bytes and words to entities.
        graphs: the two networks alone.
        stages: medians.
        speedup: eager FP32 with all pictures new over this, whole answers of the same rounds.
        graphs_speedup: likewise, of the two networks.
        share: of this variant's time with all pictures new; its `median` is below 1 where pictures seen before help.
        samples: the whole answers, round by round.
    """

    variant: Variant
    topic: Topic
    case: Case
    total: Summary
    graphs: Summary
    stages: Mapping[str, float]
    speedup: Ratio
    graphs_speedup: Ratio
    share: Ratio
    samples: tuple[float, ...]


def plan(max_length: int, pictures: int) -> list[Group]:
    """The groups of cases for a bundle, the most important first.

    Args:
        max_length: tokens that it takes.
        pictures: that it reads of a tweet; what was seen before is only varied where it reads all four.
    """
    length = min(LENGTH, max_length)
    kinds: tuple[Pictures, ...] = get_args(Pictures) if pictures == 1 + OBJECTS else ("all new",)
    lengths = sorted({min(other, max_length) for other in LENGTHS} - {length})
    return [
        Group("pictures", tuple(Case(1, length, kind) for kind in kinds)),
        *(Group("length", (Case(1, other),)) for other in lengths),
        *(Group("batch", (Case(batch, length),)) for batch in BATCHES),
    ]


def measure(
    workers: Mapping[Variant, Measurable],
    groups: Sequence[Group],
    budget: Budget,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Measurement], dict[Variant, str]]:
    """Time every variant on every case.

    Args:
        workers: the baseline among them.
        groups: see `plan`.
        budget: of every group; the first has three times the seconds.
        progress: is told each group as it begins.
        clock: seconds.

    Returns:
        The measurements, and why a variant has none from some group on.

    Raises:
        WorkerError: the baseline failed.
    """
    remaining, failed = dict(workers), {}
    measurements: list[Measurement] = []
    attempts, waiting = count(), list(groups)
    while waiting:
        group = waiting[0]
        progress(f"timing {group.name}")
        allowed = replace(budget, seconds=budget.seconds * (3 if group is groups[0] else 1))
        first = next(attempts) * (budget.most + _WARM_UP)  # of a round's number, which no other group has
        try:
            timings = _take_turns(remaining, group, allowed, first, clock)
        except WorkerError as error:
            if error.variant == BASELINE:
                raise
            failed[error.variant] = f"{group.name}: {error.reason}"
            del remaining[error.variant]
        else:
            measurements += _evaluate(timings, group)
            del waiting[0]
    return measurements, failed


def _take_turns(
    workers: Mapping[Variant, Measurable], group: Group, budget: Budget, first: int, clock: Callable[[], float]
) -> Timings:
    """PyTorch computes pictures that it has seen again, so it is only given new ones."""
    ways = {
        (variant, case): partial(worker.measure, case)
        for variant, worker in workers.items()
        for case in group.cases
        if case.pictures == "all new" or not variant.is_pytorch
    }
    return interleave(ways, budget, warm_up=_WARM_UP, first=first, clock=clock)


def _evaluate(timings: Timings, group: Group) -> list[Measurement]:
    new = group.cases[0]
    totals = {way: [1000 * sum(stages.values()) for stages in rounds] for way, rounds in timings.items()}
    graphs = {way: [1000 * graph_seconds(stages) for stages in rounds] for way, rounds in timings.items()}
    return [
        Measurement(
            variant=variant,
            topic=group.topic,
            case=case,
            total=Summary.of(totals[variant, case]),
            graphs=Summary.of(graphs[variant, case]),
            stages={stage: 1000 * median(each[stage] for each in rounds) for stage in STAGES},
            speedup=Ratio.of(totals[BASELINE, new], totals[variant, case]),
            graphs_speedup=Ratio.of(graphs[BASELINE, new], graphs[variant, case]),
            share=Ratio.of(totals[variant, case], totals[variant, new]),
            samples=tuple(totals[variant, case]),
        )
        for (variant, case), rounds in timings.items()
    ]
