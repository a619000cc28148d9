"""The whole benchmark: load every candidate, time all in turn, start them afresh, score them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import torch

from hvpnet.bench.accuracy import assess
from hvpnet.bench.candidates import BASELINE, COMPILED, Candidate, find_candidates
from hvpnet.bench.eager import reduced_precision
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.statistics import MOST, Ratio, Summary, interleave
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.workers import Worker, WorkerError, start_worker
from hvpnet.bench.workload import ALL_NEW, PICTURES, Case
from hvpnet.data import Split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import check_split
from hvpnet_runtime.bundle import Bundle, Manifest
from hvpnet_runtime.preprocessing.pictures import OnBadImage
from hvpnet_runtime.types import Progress

LENGTH, LENGTHS, BATCHES = 80, (32, 128), (8, 32)
"""Tokens of a tweet, other lengths, and batches; texts are no longer than the bundle takes."""

ROUNDS = STARTS = 3
"""Least rounds of a case, and fresh starts."""

Results: TypeAlias = dict[str, Any]
"""What results.json holds: `machine`, `model`, `data`, each `Measurement` and each `Accuracy`; by name of the
candidate, `starts` of fresh processes (see `Worker`), `start_speedups` (eager FP32's imports and loading over its own),
`peak_bytes` after all cases, and why it was `passed_over`, from the start or from some case on."""


class Data(NamedTuple):
    """A split to score on; see `load_split`."""

    root: Path
    split: SplitName
    on_bad_image: OnBadImage = "error"


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


def run_bench(
    path: Path,
    checkpoint: Path,
    out: Path,
    backends: Sequence[str],
    seconds: float,
    data: Data | None,
    progress: Progress,
) -> Results:
    """Time the bundle at a path against its checkpoint, and score both; results.json is written into `out` as it goes.

    Every group of cases is given so many seconds, the first three times as many. Backends that do not run here are
    passed over.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data cannot be read, or say nothing about the bundle.
        MissingExtraError: what scores the data is not installed.
        WorkerError: the checkpoint does not run in eager PyTorch.
    """
    bundle = Bundle.load(path)
    split = _read(data, bundle, progress) if data else None  # before minutes of timing
    results: Results = {"schema": 3, "machine": describe_machine() | {"pytorch_threads": torch.get_num_threads()}}
    results |= {"model": _model(bundle.manifest, checkpoint), "passed_over": {}, "measurements": [], "accuracy": []}
    groups = plan(bundle.manifest.limits.max_length, bundle.sizes.pictures)
    load = partial(start_worker, bundle=bundle.path, checkpoint=checkpoint, case=groups[0][0])
    workers: dict[Candidate, Worker] = {}
    with ExitStack() as stack:
        for candidate in find_candidates(bundle.manifest.precision, reduced_precision(), backends):
            progress(f"loading {candidate.name}")
            with _passing_over(results["passed_over"]):
                workers[candidate] = stack.enter_context(load(candidate))
        for found in measure(workers, groups, seconds, results["passed_over"], progress):
            results["measurements"] += found
            results["peak_bytes"] = {candidate.name: worker.peak_bytes for candidate, worker in workers.items()}
            save(results, out)

    def start(candidate: Candidate, _: int) -> dict[str, Any]:
        with load(candidate) as worker:
            return worker.start

    fresh = [each for each in workers if each.name not in results["passed_over"] and each.backend != COMPILED]
    progress(f"starting {len(fresh)} candidates afresh, {STARTS} times each")
    results["starts"] = interleave({each.name: partial(start, each) for each in fresh}, least=STARTS, warm_up=0)
    ready = {name: [each["imports"] + each["load"] for each in own] for name, own in results["starts"].items()}
    results["start_speedups"] = {name: Ratio.of(ready[BASELINE.name], own) for name, own in ready.items()}
    save(results, out)
    if data and split:
        results["data"] = {"name": data.root.absolute().name, "split": data.split, **split.counts}
        results["accuracy"] = assess(bundle, checkpoint, split, fresh, progress)
        save(results, out)
    return results


def _read(data: Data, bundle: Bundle, progress: Progress) -> Split:
    require_scorer(bundle.task)
    split = load_split(*data, labels=bundle.labels, pictures=bundle.pictures)
    progress(f"read {split.summary}")
    check_split(split, bundle.task, with_pictures=bundle.sizes.pictures > 0)
    return split


def save(results: Results, out: Path) -> None:
    """Write results.json; latencies are in milliseconds, starts in seconds."""
    (out / "results.json").write_text(json.dumps(results, default=vars, indent=1) + "\n", "utf-8")


def headline(results: Results) -> list[Measurement]:
    """Every candidate on one tweet with new pictures, the baseline first."""
    return [each for each in results["measurements"] if each.case == results["measurements"][0].case]


def plan(max_length: int, pictures: int) -> list[list[Case]]:
    """Groups of cases that take turns, the most important first, each beginning with all pictures new.

    What was seen before is only varied where the bundle reads all four pictures of a tweet.
    """
    length = min(LENGTH, max_length)
    first = [Case(1, length, kind) for kind in PICTURES][: None if pictures == 4 else 1]
    lengths = sorted({min(other, max_length) for other in LENGTHS} - {length})
    return [first, *([Case(1, other)] for other in lengths), *([Case(batch, length)] for batch in BATCHES)]


def measure(
    workers: Mapping[Candidate, Worker],
    groups: Sequence[list[Case]],
    seconds: float,
    passed_over: dict[str, str],
    say: Progress,
) -> Iterator[list[Measurement]]:
    """Time every candidate on every case, group by group; one that fails is passed over from there on.

    Raises:
        WorkerError: the baseline failed.
    """
    waiting, first, one = [*groups], 1, 0.0
    while waiting:
        group, names = waiting[0], "; ".join(case.name for case in waiting[0])
        budgets = [seconds * (3 if each is groups[0] else 1) for each in waiting]
        left = sum(max(budget, one * each[0].batch) for budget, each in zip(budgets, waiting, strict=True))
        say(f"timing {names}; all cases from here on take {'about' if one else 'at least'} {left:.0f} seconds")
        ways = {
            (candidate, case): partial(worker.measure, case)
            for candidate, worker in workers.items()
            for case in group
            # PyTorch computes pictures that it has seen again, so it is only given new ones.
            if candidate.name not in passed_over and (case.pictures == ALL_NEW or not candidate.is_pytorch)
        }
        first += 1 + MOST  # so that no group shows the pictures of another as new, nor of itself before a failure
        with _passing_over(passed_over, f"{names}: "):
            timings = interleave(ways, budgets[0], least=ROUNDS, first=first)
            one = one or (1 + ROUNDS) * sum(sum(rounds[0].values()) for rounds in timings.values())
            yield _evaluate(timings, group[0])
            del waiting[0]


@contextmanager
def _passing_over(passed_over: dict[str, str], when: str = "") -> Iterator[None]:
    """Note which candidate fails in here, and why; the baseline may not."""
    try:
        yield
    except WorkerError as error:
        if error.candidate == BASELINE:
            raise
        passed_over[error.candidate.name] = when + error.reason


def _evaluate(timings: Mapping[tuple[Candidate, Case], list[dict[str, float]]], new: Case) -> list[Measurement]:
    totals = {way: [1000 * sum(each.values()) for each in rounds] for way, rounds in timings.items()}
    graphs = {way: [1000 * (each["vision"] + each["text"]) for each in rounds] for way, rounds in timings.items()}
    return [
        Measurement(
            *(candidate, case, Summary.of(total), Summary.of(graphs[candidate, case])),
            stages={stage: 1000 * median(each[stage] for each in timings[candidate, case]) for stage in STAGES},
            speedup=Ratio.of(totals[BASELINE, new], total),
            graphs_speedup=Ratio.of(graphs[BASELINE, new], graphs[candidate, case]),
            share=Ratio.of(total, totals[candidate, new]),
            samples=total,
        )
        for (candidate, case), total in totals.items()
    ]


def _model(manifest: Manifest, checkpoint: Path) -> dict[str, Any]:
    graphs = [(name.split("/")[1], facts.bytes) for name, facts in manifest.files.items() if name.startswith("onnx/")]
    return {
        **{name: getattr(manifest, name) for name in ("task", "variant", "sizes", "architecture")},
        "max_length": manifest.limits.max_length,
        "checkpoint_bytes": sum(file.stat().st_size for file in (checkpoint, *checkpoint.rglob("*")) if file.is_file()),
        "graph_bytes": {each: sum(size for folder, size in graphs if folder == each) for each in manifest.precision},
    }
