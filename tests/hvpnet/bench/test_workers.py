"""Processes that answer: real ones for the protocol, none at all for what they say."""

import io
import json
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from hvpnet.bench.candidates import Candidate
from hvpnet.bench.stopwatch import STAGES
from hvpnet.bench.worker import serve
from hvpnet.bench.workers import Worker, WorkerError, peak_bytes, start_worker
from hvpnet.bench.workload import Case

pytestmark = pytest.mark.heavy

CASE = Case(1, 12)
RUNTIME = Candidate("onnxruntime-cpu", "fp32")


def start(bundle: Path, patience: float = 600) -> AbstractContextManager[Worker]:
    return start_worker(RUNTIME, bundle, Path("no-checkpoint"), CASE, patience)


def uses_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text("utf-8")


def test_a_process_answers(ner_bundle: Path) -> None:
    with start(ner_bundle) as worker:
        assert set(worker.start) == {"imports", "load", "first_answer", "peak_bytes"}
        assert min(worker.start.values()) > 0
        assert worker.start["peak_bytes"] > 2**25
        assert not uses_torch(worker._process.pid)
        assert uses_torch(os.getpid())  # so the question is the right one
        stages = worker.measure(Case(2, 16), 3)
        assert tuple(stages) == STAGES
        assert worker.peak_bytes >= worker.start["peak_bytes"]


def test_a_process_that_cannot_load_says_why() -> None:
    with (
        pytest.raises(WorkerError, match=r"^onnxruntime-cpu fp32: nowhere is not a bundle") as raised,
        start(Path("nowhere")),
    ):
        pass
    assert raised.value.candidate == RUNTIME


def test_a_process_that_is_killed(ner_bundle: Path) -> None:
    with start(ner_bundle) as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(WorkerError, match=re.escape("its process ended with code -9")):
            worker.measure(Case(1, 12), 0)


def test_a_process_that_takes_too_long(ner_bundle: Path) -> None:
    with pytest.raises(WorkerError, match=r"no answer in 0\.01 seconds"), start(ner_bundle, patience=0.01):
        pass


def test_a_process_that_dies_at_once_leaves_its_last_words(
    ner_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no memory left >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr("hvpnet.bench.workers.sys.executable", str(python))
    with pytest.raises(WorkerError, match="ended with code 3: no memory left"), start(ner_bundle):
        pass


def answers(bundle: Path, *requests: str, candidate: Candidate = RUNTIME) -> list[dict]:
    said = io.StringIO()
    serve(candidate, bundle, Path("no-checkpoint"), requests, said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_what_is_said(ner_bundle: Path) -> None:
    start, answer, error = answers(ner_bundle, json.dumps([*vars(CASE).values(), 1]), "{")
    assert set(start) == {"imports", "load"}
    assert set(answer) == set(STAGES)
    assert error["error"].startswith("JSONDecodeError: ")


def test_only_the_precision_asked_for(bundle_of: Callable[..., Path]) -> None:
    bundle = bundle_of("ner", "full", "markers", ("fp32", "fp16"))
    (start,) = answers(bundle, candidate=Candidate("onnxruntime-cpu", "fp16"))
    assert "load" in start
    (error,) = answers(bundle, candidate=Candidate("onnxruntime-cpu", "int8"))
    assert "int8" in error["error"]


def test_peak_memory_stays() -> None:
    """The kernel counts pages by the batch, so to a percent."""
    block = np.ones(2**28, np.uint8)
    peak = peak_bytes(os.getpid())
    del block
    assert peak is not None
    assert peak >= 0.99 * 2**28
    assert peak_bytes(os.getpid()) >= 0.99 * peak
