"""Parts handed out to processes: each has its GPU, and one that ends ends the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from annotators import Failing, Naming

from hvpnet_runtime.bulk import Job, Local
from hvpnet_runtime.bulk import local as module
from hvpnet_runtime.bulk.processes import annotate_in_processes
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.worker import Annotator, Done
from hvpnet_runtime.errors import BulkError, InputError, StaleEngineError

pytestmark = pytest.mark.heavy


def parts(count: int) -> list[Part]:
    return [Part(number, 10 * number + 1, 10, 0) for number in range(count)]


def test_every_process_has_its_gpu_and_every_part_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    gpus = ["2", "GPU-8f", None]
    done = list(annotate_in_processes(Naming(tmp_path, len(gpus)), parts(12), gpus))
    assert sorted(each.number for each in done) == list(range(12))
    assert {each.answers for each in done} == {b"2", b"GPU-8f", b"7"}
    assert len({(each.answers, each.backends) for each in done}) == len(gpus)  # a GPU is of one process


def test_an_error_is_raised_as_it_was() -> None:
    with pytest.raises(StaleEngineError, match=r"^built for another GPU$"):
        list(annotate_in_processes(Failing(3), parts(6), ["0", "1"]))


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_ends_is_an_error_that_says_where(number: int) -> None:
    with pytest.raises(BulkError) as raised:
        list(annotate_in_processes(Failing(number, exit_code=7), parts(2), [None]))
    assert str(raised.value) == (
        f"the process at the part of row {10 * number + 1} ended with exit code 7, for want of memory or by a crash of "
        "the backend: run again to go on"
    )


def test_parts_that_are_done_come_before_the_error_of_another() -> None:
    finished = annotate_in_processes(Failing(4, exit_code=1), parts(5), [None])
    assert [next(finished).number for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(BulkError, match="row 41 ended"):
        next(finished)


@pytest.mark.parametrize(
    ("local", "backend", "gpus", "expected"),
    [
        (Local(), "auto", [], ("here", None)),
        (Local(threads=3), "auto", [], ("here", 3)),
        (Local(copies=2), "auto", [], ([None, None], 4)),
        (Local(copies=99, threads=1), "auto", [], ([None] * 5, 1)),
        (Local(), "auto", ["0"], ("here", None)),
        (Local(), "auto", ["0", "3"], (["0", "3"], 4)),
        (Local(copies=3), "tensorrt", ["0", "3", "5", "6"], (["0", "3", "5"], 2)),
        (Local(copies=1), "auto", ["0", "3"], ("here", None)),
        (Local(copies=4), "auto", ["0", "3"], (["0", "3"], 4)),
        (Local(), "onnxruntime-cpu", ["0", "3"], ("here", None)),
        (Local(copies=2), "openvino", ["0", "3", "5"], ([None, None], 4)),
        (Local(device=1), "auto", ["0", "3"], ("GPU 1", None)),
        (Local(device=1, copies=1, threads=2), "tensorrt", ["0", "3"], ("GPU 1", 2)),
    ],
)
def test_what_runs_where(
    monkeypatch: pytest.MonkeyPatch, local: Local, backend: str, gpus: list[str], expected: tuple[Any, int | None]
) -> None:
    where: list[Any] = []

    def in_processes(annotate: Any, parts: Sequence[Part], places: Sequence[str | None]) -> list[Done]:
        where.append((places, annotate._threads))
        return []

    def here(annotator: Annotator, part: Part) -> Done:
        place = "here" if annotator._device is None else f"GPU {annotator._device}"
        where.append((place, annotator._threads))
        return Done(part.number, b"", b"", 0, "fake")

    monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(module, "annotate_in_processes", in_processes)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(Annotator, "__call__", here)
    job = Job(Path("bundle"), Path("in.jsonl"), Path("out.jsonl"), backend)
    list(local(job, "digest", parts(5)))
    assert where in ([expected], [expected] * 5)


def test_one_gpu_has_one_copy() -> None:
    job = Job(Path("bundle"), Path("in.jsonl"), Path("out.jsonl"))
    with pytest.raises(InputError, match="GPU 1 alone is chosen, and a GPU has one copy, not 2"):
        list(Local(copies=2, device=1)(job, "digest", parts(5)))
