"""The whole benchmark: load every candidate, time all in turn, start them afresh, score them."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hvpnet.bench.accuracy import assess
from hvpnet.bench.budget import Costs, Schedule, schedule
from hvpnet.bench.candidates import BASELINE, COMPILED, Candidate, find_candidates
from hvpnet.bench.eager import reduced_precision
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.measure import Keep, Measurement, Results, measure, passing_over, ways_of
from hvpnet.bench.statistics import Ratio, interleave
from hvpnet.bench.workers import PATIENCE, Worker, start_worker
from hvpnet.bench.workload import ALL_NEW, FOUND, PICTURES, Case
from hvpnet.data import Split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import check_split
from hvpnet_runtime.bundle import Bundle, Manifest
from hvpnet_runtime.preprocessing.pictures import OnBadImage
from hvpnet_runtime.types import Progress

LENGTH, LENGTHS, BATCHES = 80, (32, 128), (8, 32)
"""Tokens of a tweet, other lengths, and batches; texts are no longer than the bundle takes."""


class Data(NamedTuple):
    """A split to score on; see `load_split`."""

    root: Path
    split: SplitName
    on_bad_image: OnBadImage = "error"


def run_bench(
    path: Path,
    checkpoint: Path,
    backends: Sequence[str],
    seconds: float,
    data: Data | None,
    progress: Progress,
    keep: Keep,
) -> Results:
    """Time the bundle at a path against its checkpoint, and score both.

    Cases and fresh starts are given so many seconds, from when every candidate was loaded and has answered; what does
    not fit is left out. Data are scored after that. Backends that do not run here are passed over. `keep` gets the
    results as they come.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data cannot be read, or say nothing about the bundle.
        MissingExtraError: what scores the data is not installed.
        WorkerError: the checkpoint does not run in eager PyTorch.
    """
    bundle = Bundle.load(path)
    split = _read(data, bundle, progress) if data else None  # before minutes of timing
    results = _nothing_yet(bundle.manifest, checkpoint, seconds)
    groups = plan(
        bundle.manifest.limits.max_length, bundle.sizes.pictures, grounds=bundle.manifest.grounder is not None
    )
    load = partial(start_worker, bundle=bundle.path, checkpoint=checkpoint, case=groups[0][0])
    keep(results)
    workers: dict[Candidate, Worker] = {}
    with ExitStack() as stack:
        for candidate in find_candidates(bundle.manifest.precision, reduced_precision(), backends):
            progress(f"loading {candidate.name}")
            patience = seconds if candidate.backend == COMPILED else PATIENCE  # it may compile for minutes
            with passing_over(results["passed_over"]):
                workers[candidate] = stack.enter_context(load(candidate, patience=patience))
        costs = first_round(workers, groups[0][0], results["passed_over"], seconds)
        end = time.perf_counter() + seconds
        _note_starts(results, {each.name: [workers[each].start] for each in _fresh(workers, results)})
        planned = schedule(ways_of(costs.warm, groups, results["passed_over"]), costs, seconds)
        tweets = len(split.examples) if split else 0
        progress(announcement(planned, costs, tweets * sum(costs.warm[each] for each in _fresh(workers, results))))
        measure(workers, groups, costs, end, results, progress, keep)
    fresh = _fresh(workers, results)
    if rounds := schedule([], costs, end - time.perf_counter()).starts:
        progress(f"starting {len(fresh)} candidates afresh, {rounds} times each")
        starts = {each.name: partial(_start, load, each) for each in fresh}
        _note_starts(results, interleave(starts, least=rounds, warm_up=0))
    else:
        results["left_out"] |= {"fresh starts": [each.name for each in fresh]}
    keep(results)
    if data and split:
        results["data"] = {"name": data.root.absolute().name, "split": data.split, **split.counts}
        for found in assess(bundle, checkpoint, split, fresh, progress):
            results["accuracy"].append(found)
            keep(results)
    results["finished"] = True
    keep(results)
    return results


def _read(data: Data, bundle: Bundle, progress: Progress) -> Split:
    require_scorer(bundle.task)
    split = load_split(*data, labels=bundle.labels, pictures=bundle.pictures)
    progress(f"read {split.summary}")
    check_split(split, bundle.task, with_pictures=bundle.sizes.pictures > 0)
    return split


def _nothing_yet(manifest: Manifest, checkpoint: Path, seconds: float) -> Results:
    return {
        "machine": describe_machine() | {"pytorch_threads": torch.get_num_threads()},
        "model": _model(manifest, checkpoint),
        "jpeg": "full",  # as `Pipeline.load` decodes by default; the pictures timed are too small for another way
        "seconds": seconds,
        "passed_over": {},
        "left_out": {},
        "measurements": [],
        "starts": {},
        "start_speedups": {},
        "peak_bytes": {},
        "accuracy": [],
        "finished": False,
    }


def first_round(workers: Mapping[Candidate, Worker], case: Case, passed_over: dict[str, str], seconds: float) -> Costs:
    """What everything costs: from every start, and from a second answer unless the first took longer than `seconds`."""
    cold = {candidate: worker.start["first_answer"] or 0 for candidate, worker in workers.items()}
    warm: dict[Candidate, float] = {}
    for candidate, worker in workers.items():
        with passing_over(passed_over):
            quick = cold[candidate] <= seconds
            warm[candidate] = sum(worker.measure(case, 1).values()) if quick else cold[candidate]
    starts = {candidate: workers[candidate].start for candidate in warm}
    start = sum(_ready(each) + cold[candidate] for candidate, each in starts.items() if candidate.backend != COMPILED)
    return Costs(case, cold, warm, start)


def announcement(planned: Schedule, costs: Costs, scoring: float) -> str:
    """How long it takes, and what there is no time for."""
    said = f"timing takes about {sum(planned.seconds) + planned.starts * costs.start:.0f} seconds"
    if scoring:
        said += f", scoring after it at most about {scoring:.0f}"
    timed = {case.name for ways in planned.groups for _, case in ways}
    left_out = [f"{case} ({', '.join(names)})" if case in timed else case for case, names in planned.left_out.items()]
    left_out += [] if planned.starts else ["fresh starts"]
    return said + (f". More --seconds are needed for {'; '.join(left_out)}" if left_out else "")


def _start(load: Callable[[Candidate], AbstractContextManager[Worker]], candidate: Candidate, _: int) -> dict[str, Any]:
    """What a fresh process says of its start, whatever the round."""
    with load(candidate) as worker:
        return worker.start


def _fresh(workers: Iterable[Candidate], results: Results) -> list[Candidate]:
    """Those that are started afresh and scored; compiling takes too long."""
    return [each for each in workers if each.name not in results["passed_over"] and each.backend != COMPILED]


def _note_starts(results: Results, starts: Mapping[str, list[dict[str, Any]]]) -> None:
    ready = {name: [*map(_ready, own)] for name, own in starts.items()}
    results["starts"] = starts
    results["start_speedups"] = {name: Ratio.of(ready[BASELINE.name], own) for name, own in ready.items()}


def _ready(start: Mapping[str, float | None]) -> float:
    return (start["imports"] or 0) + (start["load"] or 0)


def headline(results: Results) -> list[Measurement]:
    """Every candidate on one tweet with new pictures, the baseline first."""
    return [each for each in results["measurements"] if each.case == results["measurements"][0].case]


def plan(max_length: int, pictures: int, *, grounds: bool) -> list[list[Case]]:
    """Groups of cases that take turns, the most important first, each beginning with all pictures new.

    What was seen before is only varied where the bundle reads all four pictures of a tweet, and objects are only found
    where it has a grounder.
    """
    length = min(LENGTH, max_length)
    kinds = [kind for kind in PICTURES if kind == ALL_NEW or (grounds if kind == FOUND else pictures == 4)]
    first = [Case(1, length, kind) for kind in kinds]
    lengths = sorted({min(other, max_length) for other in LENGTHS} - {length})
    return [first, *([Case(1, other)] for other in lengths), *([Case(batch, length)] for batch in BATCHES)]


def _model(manifest: Manifest, checkpoint: Path) -> dict[str, Any]:
    graphs = [(name.split("/")[1], facts.bytes) for name, facts in manifest.files.items() if name.startswith("onnx/")]
    return {
        **{name: getattr(manifest, name) for name in ("task", "variant", "sizes", "architecture")},
        "max_length": manifest.limits.max_length,
        "checkpoint_bytes": sum(file.stat().st_size for file in (checkpoint, *checkpoint.rglob("*")) if file.is_file()),
        "graph_bytes": {each: sum(size for folder, size in graphs if folder == each) for each in manifest.precision},
    }
