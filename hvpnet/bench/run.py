"""The whole benchmark: load, time, start afresh, score."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hvpnet.bench.accuracy import assess
from hvpnet.bench.eager import reduced_precision
from hvpnet.bench.interleave import Budget, interleave
from hvpnet.bench.machine import describe_machine
from hvpnet.bench.measuring import measure, plan
from hvpnet.bench.results import Results, Scored
from hvpnet.bench.variants import BASELINE, COMPILED, Variant, find_variants
from hvpnet.bench.worker import Setup
from hvpnet.bench.workers import Start, Worker, WorkerError
from hvpnet.data import load_split
from hvpnet.data.examples import SplitName
from hvpnet_runtime.bundle import Bundle

Progress = Callable[[str], None]

_STARTS = 3


@dataclass(frozen=True)
class Data:
    """Tweets to score on: a folder that `hvpnet.data.load_split` reads, and the split."""

    root: Path
    split: SplitName = "test"


def run_bench(
    bundle_path: Path,
    checkpoint: Path,
    backends: Sequence[str],
    budget: Budget,
    data: Data | None,
    progress: Progress,
) -> Results:
    """Time a bundle against its checkpoint, and score both if there are data.

    Args:
        bundle_path: the bundle's folder.
        checkpoint: what it was exported from.
        backends: names of `hvpnet_runtime.backends.BACKENDS`; those that do not run here are passed over.
        budget: of every group of cases.
        data: what to score on.
        progress: is told each step as it begins.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data cannot be read, or are for the other task.
        WorkerError: the checkpoint does not run in eager PyTorch.
    """
    bundle = Bundle.load(bundle_path)
    split = load_split(data.root, data.split) if data else None  # before minutes of timing
    groups = plan(bundle.max_length, bundle.sizes.pictures)
    setups = {
        variant: Setup(variant.engine, variant.precision, str(bundle_path), str(checkpoint), asdict(groups[0].cases[0]))
        for variant in find_variants(bundle, reduced_precision(), backends)
    }
    machine = describe_machine() | {"pytorch_threads": torch.get_num_threads()}
    with ExitStack() as stack:
        workers, passed_over = _start(setups, stack, progress)
        measurements, failed = measure(workers, groups, budget, progress)
        peaks = {variant: worker.peak_bytes for variant, worker in workers.items()}
    remaining = [variant for variant in workers if variant not in failed and variant.engine != COMPILED]
    starts = _fresh_starts({variant: setups[variant] for variant in remaining}, progress)
    scored = None
    if data and split:
        accuracy = assess(bundle, checkpoint, split, remaining, progress)
        scored = Scored(data.root.absolute().name, data.split, len(split.examples), tuple(accuracy))
    reasons = {variant.name: reason for variant, reason in (passed_over | failed).items()}
    return Results(machine, _model(bundle, checkpoint), tuple(measurements), starts, peaks, reasons, scored)


def _start(
    setups: Mapping[Variant, Setup], stack: ExitStack, progress: Progress
) -> tuple[dict[Variant, Worker], dict[Variant, str]]:
    """A worker for every variant that runs here, closed with the stack, and why the others do not."""
    workers, passed_over = {}, {}
    for variant, setup in setups.items():
        progress(f"loading {variant.name}")
        try:
            workers[variant] = stack.enter_context(Worker(variant, setup))
        except WorkerError as error:
            if variant == BASELINE:
                raise
            passed_over[variant] = error.reason
    return workers, passed_over


def _fresh_starts(setups: Mapping[Variant, Setup], progress: Progress) -> dict[Variant, tuple[Start, ...]]:
    progress(f"starting {len(setups)} variants afresh, {_STARTS} times each")

    def start(variant: Variant, _: int) -> Start:
        with Worker(variant, setups[variant]) as worker:
            return worker.start

    turns = interleave(
        {variant: partial(start, variant) for variant in setups}, Budget(0, least=_STARTS, most=_STARTS), warm_up=0
    )
    return {variant: tuple(starts) for variant, starts in turns.items()}


def _model(bundle: Bundle, checkpoint: Path) -> dict[str, Any]:
    files = bundle.manifest["files"]
    return {
        "task": bundle.task,
        "variant": bundle.variant,
        "sizes": asdict(bundle.sizes),
        "architecture": bundle.manifest["architecture"],
        "max_length": bundle.max_length,
        "checkpoint_bytes": sum(file.stat().st_size for file in _files(checkpoint)),
        "graph_bytes": {
            precision: sum(facts["bytes"] for name, facts in files.items() if name.startswith(f"onnx/{precision}/"))
            for precision in bundle.precisions
        },
    }


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
