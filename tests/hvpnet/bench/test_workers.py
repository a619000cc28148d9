"""Processes that answer: real ones for the protocol, none at all for what they say."""

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.variants import Variant
from hvpnet.bench.worker import Setup, peak_bytes, serve
from hvpnet.bench.workers import Worker, WorkerError
from hvpnet.bench.workload import Case

CASE = {"batch": 1, "length": 12, "pictures": "all new"}
RUNTIME = Variant("onnxruntime-cpu", "fp32")


@pytest.fixture
def setup(ner_bundle: Path) -> Setup:
    return Setup("onnxruntime-cpu", "fp32", str(ner_bundle), "no-checkpoint", CASE)


def uses_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text("utf-8")


def test_a_process_answers(setup: Setup) -> None:
    with Worker(RUNTIME, setup) as worker:
        assert min(worker.start.imports, worker.start.load, worker.start.first_answer) > 0
        assert worker.start.ready == worker.start.imports + worker.start.load
        assert worker.start.peak_bytes is not None
        assert worker.start.peak_bytes > 2**25
        assert not uses_torch(worker._process.pid)
        assert uses_torch(os.getpid())  # so the question is the right one
        stages = worker.measure(Case(2, 16), 3)
        assert tuple(stages) == STAGES
        assert worker.peak_bytes >= worker.start.peak_bytes


def test_a_process_that_cannot_load_says_why(setup: Setup) -> None:
    with pytest.raises(WorkerError, match=r"^onnxruntime-cpu fp32: nowhere is not a bundle") as raised:
        Worker(RUNTIME, replace(setup, bundle="nowhere"))
    assert raised.value.variant == RUNTIME


def test_a_process_that_is_killed(setup: Setup) -> None:
    with Worker(RUNTIME, setup) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerError, match=re.escape("its process ended with code -9")):
            worker.measure(Case(1, 12), 0)


def test_a_process_that_takes_too_long(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvpnet.bench.workers._PATIENCE", 0.01)
    with pytest.raises(WorkerError, match=r"no answer in 0\.01 seconds"):
        Worker(RUNTIME, setup)


def test_a_process_that_dies_at_once_leaves_its_last_words(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvpnet.bench.workers.asdict", lambda _: {"surplus": 1})
    with pytest.raises(WorkerError, match=r"ended with code 1: TypeError: .*surplus"):
        Worker(RUNTIME, setup)


def answers(setup: Setup, *requests: object) -> list[dict]:
    said = io.StringIO()
    serve(setup, [request if isinstance(request, str) else json.dumps(request) for request in requests], said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_what_is_said(setup: Setup) -> None:
    start, answer, error = answers(setup, {"case": CASE, "number": 1}, "{")
    assert set(start["start"]) == {"import", "load", "first"}
    assert set(answer["stages"]) == set(STAGES)
    assert error["error"].startswith("JSONDecodeError: ")
    assert all(said["peak_bytes"] > 0 for said in (start, answer, error))


def test_peak_memory_stays() -> None:
    """The kernel counts pages by the batch, so to a percent."""
    block = np.ones(2**28, np.uint8)
    peak = peak_bytes()
    del block
    assert peak is not None
    assert peak >= 0.99 * 2**28
    assert peak_bytes() >= 0.99 * peak
