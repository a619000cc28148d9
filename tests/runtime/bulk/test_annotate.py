"""Whole runs, on this machine and through Ray: the answers of `Pipeline`, whatever the format and the size of parts."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hvpnet.cli import main
from hvpnet_runtime import BackendError
from hvpnet_runtime.bulk import Job, annotate
from hvpnet_runtime.bulk.on_ray import OnRay
from hvpnet_runtime.bulk.on_ray.cluster import Actor
from hvpnet_runtime.bulk.source import JsonLines, Part
from hvpnet_runtime.bulk.worker import Annotator, Done
from hvpnet_runtime.errors import BulkError, ResumeError
from hvpnet_runtime.types import Result

pytestmark = pytest.mark.heavy


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def numbered(path: Path, count: int) -> Path:
    """As many tweets, whose ids count from 0."""
    path.write_text("".join(json.dumps({"id": row, "text": f"Jordan {row}"}) + "\n" for row in range(count)))
    return path


def test_json_lines_to_json_lines(
    ner_bundle: Path, entities: Any, tmp_path: Path, assert_equal: Any, form: Any
) -> None:
    job = Job(ner_bundle, entities.write_lines("lines.jsonl"), tmp_path / "out.jsonl", part_rows=10)
    report = annotate(job, form.workers(threads=1))
    assert_equal(read(job.output), entities.answers(ner_bundle))
    assert (report.rows, report.annotated, report.rejected, report.resumed) == (48, 48, {}, 0)
    assert report.backends == ("onnxruntime-cpu",)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_parquet_to_parquet(re_bundle: Path, relations: Any, tmp_path: Path, assert_equal: Any, form: Any) -> None:
    job = Job(re_bundle, relations.write_parquet("tweets.parquet"), tmp_path / "out.parquet", part_rows=10)
    annotate(job, form.workers(threads=1))
    assert_equal(read(job.output), relations.answers(re_bundle))


@pytest.mark.golden
@pytest.mark.parametrize("task", ["ner", "re"])
def test_golden_tweets(
    bundle_of: Callable[..., Path],
    golden_tweets: Callable[..., Any],
    tmp_path: Path,
    corpus_of: Any,
    assert_equal: Any,
    task: str,
) -> None:
    corpus = corpus_of(tmp_path, tuple(golden_tweets(task)))
    job = Job(bundle_of(task), corpus.write_lines("tweets.jsonl"), tmp_path / "out.jsonl", window=True, part_rows=3)
    annotate(job)
    assert_equal(read(job.output), corpus.answers(job.bundle, window=True))


def test_the_command_says_what_became_of_every_row(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, tmp_path: Path, form: Any
) -> None:
    from json_keys import assert_snake_case  # here, for Ray's workers import this module without it

    rows = [{"id": row, "text": f"Jordan number {row}"} for row in range(12)]
    rows[3]["text"] = rows[4]["text"] = ""
    rows[7]["image"] = "absent.png"
    source, out = tmp_path / "tweets.jsonl", tmp_path / "new" / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)) + "\n{\n\n")
    code = main(["annotate", *map(str, (ner_bundle, source, out)), "--part-rows", "5", "--json", *form.arguments])
    captured = capsys.readouterr()
    assert code == 1
    summary = json.loads(captured.out)
    assert_snake_case(summary)
    assert {name: summary[name] for name in ("rows", "annotated", "rejected")} == {
        "rows": 13,
        "annotated": 9,
        "rejected": 4,
    }
    assert {name: summary["errors"][name] for name in ("TextError", "PictureError")} == {
        "TextError": 2,
        "PictureError": 1,
    }
    assert "13/13" in captured.err
    assert "out.jsonl.rejected.jsonl, each with its error" in captured.err
    assert [row["id"] for row in read(out)] == [0, 1, 2, 5, 6, 8, 9, 10, 11]
    side = read(out.with_name("out.jsonl.rejected.jsonl"))
    assert [(row["row"], row["id"]) for row in side] == [(4, 3), (5, 4), (8, 7), (13, None)]
    assert main(["annotate", *map(str, (ner_bundle, source, out)), *form.arguments]) == 1
    assert "out.jsonl exists" in capsys.readouterr().err
    assert main(["annotate", *map(str, (ner_bundle, source, out)), "--copies", "0"]) == 1
    assert "--copies must be at least 1" in capsys.readouterr().err


def test_nothing_in_nothing_out(ner_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "tweets.jsonl").write_text("\n")
    report = annotate(Job(ner_bundle, tmp_path / "tweets.jsonl", tmp_path / "out.parquet"))
    assert (report.rows, report.backends) == (0, ())
    assert read(tmp_path / "out.parquet") == []


class Failing(Annotator):
    """Fails at one part, until a file appears."""

    def __call__(self, part: Part) -> Done:
        if part.number == 2 and not self._job.output.with_name("repaired").exists():
            self._pipeline.start = fail  # type: ignore[method-assign]
        return super().__call__(part)


def fail(_: object) -> list[Result]:
    raise BackendError("the engine fails")


def test_a_failing_engine_stops_the_run_and_the_rest_goes_on_later(
    ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any
) -> None:
    source = numbered(tmp_path / "tweets.jsonl", 12)
    monkeypatch.setattr(form.annotator, Failing)
    job = Job(ner_bundle, source, tmp_path / "out.jsonl", part_rows=2)
    with pytest.raises(BackendError, match="the engine fails"):
        annotate(job, form.workers(copies=1))
    assert not job.output.exists()
    with pytest.raises(ResumeError, match="another part_rows: restore that to go on"):
        annotate(replace(job, part_rows=3))
    facts = source.stat()
    source.touch()
    with pytest.raises(ResumeError, match="another input"):
        annotate(job)
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "repaired").touch()
    report = annotate(job, form.workers(copies=1))
    assert report.resumed >= 2
    assert [row["id"] for row in read(job.output)] == list(range(12))


class Deadly(Actor):
    """Ends its process at one part, as a crash of an engine does."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["number"] == 1 and self._begin(1) < 3:
            os._exit(139)
        return super().__call__(row)


@pytest.mark.usefixtures("ray_here")
def test_a_part_that_ends_its_processes_ends_the_run(
    ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = numbered(tmp_path / "tweets.jsonl", 6)
    monkeypatch.setattr("hvpnet_runtime.bulk.on_ray.cluster.Actor", Deadly)
    job = Job(ner_bundle, source, tmp_path / "out.jsonl", part_rows=2)
    with pytest.raises(BulkError, match="the part at row 3 ended its process 3 times"):
        annotate(job, OnRay(copies=1))


def test_an_input_that_changes_during_the_run_is_an_error(
    ner_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_text('{"text": "Jordan"}\n')
    index = JsonLines.index

    def index_and_append(self: JsonLines, part_rows: int, tick: Any) -> list[Part]:
        parts = index(self, part_rows, tick)
        with source.open("a") as lines:
            lines.write('{"text": "one more"}\n')
        return parts

    monkeypatch.setattr(JsonLines, "index", index_and_append)
    with pytest.raises(BulkError, match=r"changed during the run: remove .*out\.jsonl\.work to begin anew"):
        annotate(Job(ner_bundle, source, tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()
