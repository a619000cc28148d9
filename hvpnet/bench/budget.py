"""What fits into a time, from what the first answers took: the most important cases first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.statistics import MOST
from hvpnet.bench.workload import Case

ROUNDS = STARTS = 3
"""Least rounds of a case, beside the one to warm up, and fresh starts."""

Way: TypeAlias = tuple[Candidate, Case]


@dataclass(frozen=True)
class Costs:
    """Seconds that things take.

    Attributes:
        first: the case of the answers below, of one tweet.
        cold: the first answer of a candidate's process; it may compile, and so may the first of any other shape.
        warm: a later answer.
        start: a fresh start of every candidate that is started afresh.
    """

    first: Case
    cold: Mapping[Candidate, float]
    warm: Mapping[Candidate, float]
    start: float

    def rounds(self, way: Way, count: int) -> float:
        """A round to warm up, and so many more; in proportion to the tweets, and to texts that are longer."""
        candidate, case = way
        answer = self.warm[candidate] * case.batch * max(1, case.length / self.first.length)
        known = (case.batch, case.length) == (self.first.batch, self.first.length)
        return max(answer, 0 if known else self.cold[candidate]) + count * answer


@dataclass(frozen=True)
class Schedule:
    """What is done in a time.

    Attributes:
        groups: of every group, what takes turns, in the order that was given.
        seconds: of every group.
        starts: rounds of fresh starts.
        left_out: names of the candidates that are not timed on a case, by its name.
    """

    groups: Sequence[Sequence[Way]]
    seconds: Sequence[float]
    starts: int
    left_out: dict[str, list[str]]


def schedule(groups: Sequence[Sequence[Way]], costs: Costs, seconds: float) -> Schedule:
    """Share out seconds.

    Every way gets its least rounds while there is time: group by group, case by case, the baseline first and then the
    fastest. Then come fresh starts. What is left goes to the groups, thrice as much to that of the first case, which is
    timed with the baseline and the fastest even if there is no time.
    """
    chosen: list[list[Way]] = []
    for group in groups:
        taken, seconds = _choose(group, costs, seconds)
        chosen.append([way for way in group if way in taken])
    starts = int(min(STARTS, max(0, seconds) // costs.start)) if costs.start else STARTS
    spare = max(0, seconds - starts * costs.start)
    shares = [0 if not ways else 3 if costs.first in (case for _, case in ways) else 1 for ways in chosen]
    budgets = [
        min(_total(ways, costs, MOST), _total(ways, costs, ROUNDS) + spare * share / max(1, sum(shares)))
        for ways, share in zip(chosen, shares, strict=True)
    ]
    out = [way for group, ways in zip(groups, chosen, strict=True) for way in group if way not in ways]
    return Schedule(chosen, budgets, starts, by_case(out))


def by_case(ways: Iterable[Way]) -> dict[str, list[str]]:
    """Names of the candidates of each case, by its name."""
    found: dict[str, list[str]] = {}
    for candidate, case in ways:
        found.setdefault(case.name, []).append(candidate.name)
    return found


def _choose(group: Sequence[Way], costs: Costs, seconds: float) -> tuple[set[Way], float]:
    """What fits, and the seconds that are left after it."""
    taken: set[Way] = set()
    before, cases = seconds, list(dict.fromkeys(case for _, case in group))
    order = lambda way: (cases.index(way[1]), way[0] != BASELINE, costs.warm[way[0]])  # noqa: E731  a key
    for candidate, case in sorted(group, key=order):
        cost = costs.rounds((candidate, case), ROUNDS)
        compared = {(BASELINE, cases[0]), (candidate, cases[0])} <= taken | {(candidate, case)}
        must = case == costs.first and len(taken) < 2
        if must or (compared and cost <= seconds):
            taken.add((candidate, case))
            seconds -= cost
    if taken == {(BASELINE, cases[0])} != set(group):
        return set(), before  # nothing that it is compared with
    return taken, seconds


def _total(ways: Iterable[Way], costs: Costs, count: int) -> float:
    return sum(costs.rounds(way, count) for way in ways)
