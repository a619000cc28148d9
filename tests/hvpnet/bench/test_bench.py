"""`hvpnet bench` from bundle and checkpoint to results, report and figures, every number consistent with the others."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from json_keys import assert_snake_case
from tiny_grounder import add_grounder

from hvpnet import HVPNeT
from hvpnet.bench import budget, statistics
from hvpnet.bench import run as bench
from hvpnet.bench.candidates import BASELINE, Candidate
from hvpnet.bench.eager import EagerPipeline
from hvpnet.bench.statistics import Ratio, Summary
from hvpnet.bench.stopwatch import STAGES, Stopwatch
from hvpnet.bench.workers import Worker, WorkerError, peak_bytes
from hvpnet.bench.workload import Case, Workload
from hvpnet.cli import main
from hvpnet.data import Sizes, write_picture_tweets
from hvpnet.modeling.checkpoint import save_checkpoint
from hvpnet_runtime import Pipeline

pytestmark = pytest.mark.heavy


class LocalWorker(Worker):
    """A worker in the test's own process, which has PyTorch loaded already."""

    def __init__(self, candidate: Candidate, bundle: Path, checkpoint: Path, case: Case) -> None:
        start = time.perf_counter()
        if candidate.is_pytorch:
            self._stopwatch = Stopwatch(EagerPipeline.load(candidate, bundle, checkpoint))
        else:
            self._stopwatch = Stopwatch(Pipeline.load(bundle, candidate.backend, precision=candidate.precision))
        load = time.perf_counter() - start
        self._workload = Workload(bundle)
        self.peak_bytes = peak_bytes(os.getpid())
        first_answer = sum(self.measure(case, 0).values())
        self.start = {"imports": 0.1, "load": load, "first_answer": first_answer, "peak_bytes": self.peak_bytes}

    def measure(self, case: Case, number: int) -> dict[str, float]:
        return self._stopwatch.measure(self._workload.tweets(case, number))


@contextmanager
def start_locally(
    candidate: Candidate, bundle: Path, checkpoint: Path, case: Case, patience: float = 600
) -> Iterator[Worker]:
    if candidate.backend == "torch.compile":  # which takes too long for a test
        raise WorkerError(candidate, "no compiler")
    yield LocalWorker(candidate, bundle, checkpoint, case)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_picture_tweets(tmp_path_factory.mktemp("data") / "drawn", sizes=Sizes(train=2, dev=1, test=4))


@pytest.fixture(scope="module")
def bundle(ner_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a grounder."""
    return add_grounder(Path(shutil.copytree(ner_bundle, tmp_path_factory.mktemp("grounded") / "bundle")))


@pytest.fixture(scope="module")
def out(ner_model: HVPNeT, bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, on small batches."""
    folder = tmp_path_factory.mktemp("bench")
    checkpoint = save_checkpoint(ner_model, folder / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "start_worker", start_locally)
        patch.setattr(budget, "STARTS", 2)
        patch.setattr(budget, "MOST", 3)
        patch.setattr(statistics, "MOST", 3)
        patch.setattr(bench, "BATCHES", (2,))
        arguments = [bundle, "--checkpoint", checkpoint, "--out", folder / "out", "--data", data]
        assert main(["bench", *map(str, arguments), "--backend", "onnxruntime-cpu"]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / "results.json").read_text("utf-8"))
    return loaded


def name(entry: dict[str, Any]) -> str:
    return Candidate(**entry["candidate"]).name


def test_every_candidate_and_case(results: dict[str, Any]) -> None:
    found = {
        (name(each), each["case"]["batch"], each["case"]["length"], each["case"]["pictures"])
        for each in results["measurements"]
    }
    new = {
        (candidate, batch, length, "all new")
        for candidate in ("eager fp32", "eager bf16", "onnxruntime-cpu fp32")
        for batch, length in ((1, 64), (1, 32), (2, 64))
    }
    again = {
        ("onnxruntime-cpu fp32", 1, 64, pictures)
        for pictures in ("one new, three seen", "one new, no objects", "all seen", "one new, objects found")
    }
    assert found == new | again
    passed_over = {name(each): each["passed_over"] for each in results["candidates"]}
    assert {each: reason for each, reason in passed_over.items() if reason} == {"torch.compile fp32": "no compiler"}


def test_numbers_follow_from_the_samples(results: dict[str, Any]) -> None:
    measurements = results["measurements"]
    for each in measurements:
        baseline = next(
            other
            for other in measurements
            if name(other) == BASELINE.name and other["case"] == each["case"] | {"pictures": "all new"}
        )
        new = next(
            other
            for other in measurements
            if name(other) == name(each) and other["case"] == each["case"] | {"pictures": "all new"}
        )
        assert each["total"] == pytest.approx(vars(Summary.of(each["samples"])), rel=1e-4)
        assert each["speedup"] == pytest.approx(vars(Ratio.of(baseline["samples"], each["samples"])), rel=1e-4)
        assert each["share"] == pytest.approx(vars(Ratio.of(each["samples"], new["samples"])), rel=1e-4)
        assert set(each["stages"]) == set(STAGES)
        assert each["graphs"]["minimum"] < each["total"]["minimum"]


def test_pictures_seen_before_are_not_computed(results: dict[str, Any]) -> None:
    seen = [each for each in results["measurements"] if each["case"]["pictures"] == "all seen"]
    assert [each["stages"]["vision"] for each in seen] == [0]


def test_grounding_is_a_stage_where_objects_are_found(out: Path, results: dict[str, Any]) -> None:
    ground = {each["case"]["pictures"]: each["stages"]["ground"] for each in results["measurements"]}
    (found,) = (each for each in results["measurements"] if each["case"]["pictures"] == "one new, objects found")
    assert [kind for kind, milliseconds in ground.items() if milliseconds > 0] == ["one new, objects found"]
    section = (out / "report.md").read_text("utf-8").split("## Objects found in a new picture")[1]
    line = f"| onnxruntime-cpu fp32 | {found['stages']['ground']:.2f} | {found['total']['p50']:.1f} | "
    assert section.split("##")[0].count(line) == 1


def test_accuracy_is_that_of_evaluate(
    results: dict[str, Any], ner_bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(ner_bundle), "--data", str(data), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    scored = results["accuracy"]
    assert results["data"] == {"name": "drawn", "split": "test", "tweets": 4, "pictures": 4, "crops": 5}
    assert [name(each) for each in scored] == ["eager fp32", "eager bf16", "onnxruntime-cpu fp32"]
    for index in (0, 2):
        assert scored[index]["scores"]["f1"] == pytest.approx(evaluated["f1"], abs=1e-6)
        assert scored[index]["differing"] == 0


def test_starts(results: dict[str, Any]) -> None:
    started = {name(each): each for each in results["candidates"] if each["starts"]}
    assert list(started) == ["eager fp32", "eager bf16", "onnxruntime-cpu fp32"]
    eager, _, runtime = started.values()
    ready = [[start["imports"] + start["load"] for start in each["starts"]] for each in (eager, runtime)]
    assert [len(each) for each in ready] == [2, 2]
    assert all(each["peak_bytes"] > 0 for each in started.values())
    assert runtime["start_speedup"] == pytest.approx(vars(Ratio.of(*ready)), rel=1e-3)


def test_machine_and_model(results: dict[str, Any], bundle: Path) -> None:
    assert_snake_case(results)
    machine, model = results["machine"], results["model"]
    assert machine["cpu"]["cores"] >= 1
    assert {"torch", "onnxruntime", "numpy", "hvpnet"} <= set(machine["versions"])
    assert model["task"] == "ner"
    graphs = sum(path.stat().st_size for path in (bundle / "onnx" / "fp32").iterdir())
    assert model["graph_bytes"] == {"fp32": graphs}


def test_report(out: Path, results: dict[str, Any]) -> None:
    report = (out / "report.md").read_text("utf-8")
    for heading in ("One request", "Its stages", "Pictures seen before", "Batch and length", "Start and memory"):
        assert f"## {heading}" in report
    assert "## Accuracy on 4 tweets of drawn, test" in report
    assert "- torch.compile fp32: no compiler" in report
    runtime = next(each for each in results["measurements"] if name(each) == "onnxruntime-cpu fp32")
    (row,) = [line for line in report.split("## Its stages")[0].splitlines() if line.startswith("| onnxruntime-cpu")]
    total, speedup = runtime["total"], runtime["speedup"]
    cells = [f"{total[key]:.1f}" for key in ("minimum", "p50", "p95", "p99")]
    cells.append(f"{speedup['median']:.2f} ({speedup['low']:.2f} to {speedup['high']:.2f})")
    assert row.startswith(f"| onnxruntime-cpu fp32 | {' | '.join(cells)} |")
    tables = [line for line in report.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables if line.startswith("| onnxruntime-cpu fp32 |")}) > 1
    for figure in ("latency", "batch", "accuracy"):
        assert f"![{figure}]({figure}.svg)" in report
        assert "</svg>" in (out / f"{figure}.svg").read_text("utf-8")


def test_wrong_arguments(ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(ner_bundle), "--checkpoint", "none", "--out", str(tmp_path)]
    assert main(["bench", *arguments, "--seconds", "-1"]) == 1
    assert capsys.readouterr().err == "hvpnet: error: --seconds must be a number from 0, not -1.0\n"
    assert main(["bench", *arguments, "--seconds", "inf"]) == 1
    assert capsys.readouterr().err == "hvpnet: error: --seconds must be a number from 0, not inf\n"
    assert main(["bench", *arguments, "--data", str(tmp_path / "nowhere")]) == 1
    assert "no test split in" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_that_cannot_be_read(ner_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(ner_bundle), "--checkpoint", str(tmp_path / "none.pth"), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hvpnet: error: eager fp32: ")
    assert "none.pth" in error


@pytest.fixture
def arguments(
    ner_model: HVPNeT, ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """A command line, in a process that loads in no time."""
    monkeypatch.setattr(bench, "start_worker", start_locally)
    checkpoint = save_checkpoint(ner_model, tmp_path / "checkpoint")
    given = ["bench", ner_bundle, "--checkpoint", checkpoint, "--out", tmp_path / "out", "--backend", "onnxruntime-cpu"]
    return lambda *more: [*map(str, given), *map(str, more)]


def test_no_time_leaves_the_first_case_and_names_the_others(
    arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("--seconds", 0)) == 0
    said = capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert [each["case"] for each in results["measurements"]] == [{"batch": 1, "length": 64, "pictures": "all new"}] * 2
    counts = {each["total"]["count"] for each in results["measurements"]}
    assert len(counts) == 1
    assert min(counts) >= 3  # more where answers come sooner than the first ones let expect
    not_new = ("one new, three seen", "one new, no objects", "all seen")
    names = [f"batch 1, 64 tokens, {pictures}" for pictures in not_new]
    names += [f"batch {batch}, {length} tokens, all new" for batch, length in ((1, 32), (8, 64), (32, 64))]
    left_out = {each["what"]: each["candidates"] for each in results["left_out"]}
    assert set(left_out) - {"batch 1, 64 tokens, all new"} == {*names, "fresh starts"}
    assert {"eager fp32", "onnxruntime-cpu fp32"} <= set(left_out["fresh starts"])
    report = (tmp_path / "out" / "report.md").read_text("utf-8")
    announced = next(line for line in said.splitlines() if "More --seconds are needed for" in line)
    for name in names:
        assert name in announced
        assert f"- {name}: " in report
    assert "Not finished" not in report


def test_an_interrupt_leaves_what_was_measured(
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = LocalWorker.measure

    def interrupted(worker: LocalWorker, case: Case, number: int) -> dict[str, float]:
        if case.length == 32:
            raise KeyboardInterrupt
        return measure(worker, case, number)

    monkeypatch.setattr(LocalWorker, "measure", interrupted)
    monkeypatch.setattr(statistics, "MOST", 3)
    assert main(arguments()) == 130
    out = tmp_path / "out"
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        f"hvpnet: what was measured until now is in {out / 'report.md'}",
        "hvpnet: error: interrupted",
    ]
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert not results["finished"]
    assert {each["case"]["length"] for each in results["measurements"]} == {64}
    assert len(results["measurements"]) == 3 + 3
    report = (out / "report.md").read_text("utf-8")
    assert "**Not finished**" in report
    assert "## One request: batch 1, 64 tokens, all new, 3 rounds" in report
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "results.json"]
