"""The whole benchmark: load every variant, time all in turn, start them afresh, score them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import torch

from hvpnet.bench.accuracy import assess
from hvpnet.bench.eager import reduced_precision
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.statistics import MOST, Ratio, Summary, interleave
from hvpnet.bench.subjects import BASELINE, COMPILED, STAGES, Variant, find_variants
from hvpnet.bench.workers import Worker, WorkerError
from hvpnet.bench.workload import ALL_NEW, PICTURES, Case
from hvpnet.data import Split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.metrics import require_scorer
from hvpnet.evaluation.scoring import check_split
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.preprocessing.pictures import OnBadImage
from hvpnet_runtime.types import Progress

LENGTH, LENGTHS, BATCHES = 80, (32, 128), (8, 32)
"""Tokens of a tweet, other lengths, and batches; texts are no longer than the bundle takes."""

ROUNDS = STARTS = 3
"""Least rounds of a case, and fresh starts."""

Reasons: TypeAlias = dict[str, str]  # by name of the variant
Results: TypeAlias = dict[str, Any]
"""What results.json holds: `machine`, `model`, `data`, each `Measurement` and each `Accuracy`; by name of the variant,
`starts` of fresh processes (see `Worker`), `start_speedups` (eager FP32's imports and loading over its own),
`peak_bytes` after all cases, and why it was `passed_over`, from the start or from some case on."""


class Data(NamedTuple):
    """A split to score on; see `load_split`."""

    root: Path
    split: SplitName
    on_bad_image: OnBadImage = "error"


@dataclass(frozen=True)
class Measurement:
    """What one variant took for one case, in milliseconds per answer of the whole batch.

    `total` is from picture bytes and words to entities, `graphs` the two networks alone, `stages` are medians. Both
    speed-ups are eager FP32 with all pictures new over this, `share` is this over the same variant with all pictures
    new, always in the same rounds. `samples` are the whole answers, round by round.
    """

    variant: Variant
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
    results: Results = {"schema": 2, "machine": describe_machine() | {"pytorch_threads": torch.get_num_threads()}}
    results |= {"model": _model(bundle, checkpoint), "passed_over": {}, "measurements": [], "accuracy": []}
    groups = plan(bundle.manifest.limits.max_length, bundle.sizes.pictures)
    load = partial(Worker, bundle=bundle.path, checkpoint=checkpoint, case=groups[0][0])
    workers: dict[Variant, Worker] = {}
    with ExitStack() as stack:
        for variant in find_variants(bundle.manifest.precision, reduced_precision(), backends):
            progress(f"loading {variant.name}")
            try:
                workers[variant] = stack.enter_context(load(variant))
            except WorkerError as error:
                _pass_over(error, results["passed_over"])
        for found in measure(workers, groups, seconds, results["passed_over"], progress):
            results["measurements"] += found
            results["peak_bytes"] = {variant.name: worker.peak_bytes for variant, worker in workers.items()}
            save(results, out)

    def start(variant: Variant, _: int) -> dict[str, Any]:
        with load(variant) as worker:
            return worker.start

    fresh = [each for each in workers if each.name not in results["passed_over"] and each.backend != COMPILED]
    progress(f"starting {len(fresh)} variants afresh, {STARTS} times each")
    starts = interleave({each.name: partial(start, each) for each in fresh}, least=STARTS, warm_up=0)
    ready = {name: [each["imports"] + each["load"] for each in own] for name, own in starts.items()}
    speedups = {name: Ratio.of(ready[BASELINE.name], own) for name, own in ready.items()}
    results |= {"starts": starts, "start_speedups": speedups}
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
    """Every variant on one tweet with new pictures, the baseline first."""
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
    workers: Mapping[Variant, Worker], groups: Sequence[list[Case]], seconds: float, passed_over: Reasons, say: Progress
) -> Iterator[list[Measurement]]:
    """Time every variant on every case, group by group; one that fails is passed over from there on.

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
            (variant, case): partial(worker.measure, case)
            for variant, worker in workers.items()
            for case in group
            # PyTorch computes pictures that it has seen again, so it is only given new ones.
            if variant.name not in passed_over and (case.pictures == ALL_NEW or not variant.is_pytorch)
        }
        first += 1 + MOST  # so that no group shows the pictures of another as new, nor of itself before a failure
        try:
            timings = interleave(ways, budgets[0], least=ROUNDS, first=first)
        except WorkerError as error:
            _pass_over(error, passed_over, f"{names}: ")
        else:
            one = one or (1 + ROUNDS) * sum(sum(rounds[0].values()) for rounds in timings.values())
            yield _evaluate(timings, group[0])
            del waiting[0]


def _evaluate(timings: Mapping[tuple[Variant, Case], list[dict[str, float]]], new: Case) -> list[Measurement]:
    totals = {way: [1000 * sum(each.values()) for each in rounds] for way, rounds in timings.items()}
    graphs = {way: [1000 * (each["vision"] + each["text"]) for each in rounds] for way, rounds in timings.items()}
    return [
        Measurement(
            *(variant, case, Summary.of(total), Summary.of(graphs[variant, case])),
            stages={stage: 1000 * median(each[stage] for each in timings[variant, case]) for stage in STAGES},
            speedup=Ratio.of(totals[BASELINE, new], total),
            graphs_speedup=Ratio.of(graphs[BASELINE, new], graphs[variant, case]),
            share=Ratio.of(total, totals[variant, new]),
            samples=total,
        )
        for (variant, case), total in totals.items()
    ]


def _pass_over(error: WorkerError, passed_over: Reasons, when: str = "") -> None:
    if error.variant == BASELINE:
        raise error
    passed_over[error.variant.name] = when + error.reason


def _model(bundle: Bundle, checkpoint: Path) -> dict[str, Any]:
    manifest, graph_bytes = bundle.manifest, dict[str, int]()
    for precision in manifest.precision:
        files = (facts for name, facts in manifest.files.items() if name.startswith(f"onnx/{precision}/"))
        graph_bytes[precision] = sum(facts.bytes for facts in files)
    return {
        **{name: getattr(manifest, name) for name in ("task", "variant", "sizes", "architecture")},
        "max_length": manifest.limits.max_length,
        "checkpoint_bytes": sum(file.stat().st_size for file in (checkpoint, *checkpoint.rglob("*")) if file.is_file()),
        "graph_bytes": graph_bytes,
    }
