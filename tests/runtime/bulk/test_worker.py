"""Parts, one after the other: bad rows, failures, and the same bytes whatever came before."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvpnet_runtime import BackendError, BundleError, InputError, MissingExtraError, Pipeline
from hvpnet_runtime.bulk import Job
from hvpnet_runtime.bulk.source import Part, open_source
from hvpnet_runtime.bulk.worker import Annotator, Done, Failed, outcome_of
from hvpnet_runtime.errors import BulkError
from hvpnet_runtime.jsonl import tweet_from_dict

pytestmark = pytest.mark.heavy


def annotator(job: Job, threads: int = 1, digest: str | None = None) -> Annotator:
    return Annotator(job, digest or job.digest(), threads)


def parts_of(job: Job) -> list[Part]:
    return open_source(job.input).index(job.part_rows, lambda _: None)


def done(worker: Annotator, part: Part) -> Done:
    outcome = outcome_of(worker, part)
    assert isinstance(outcome, Done), outcome
    return outcome


def failed(worker: Annotator, part: Part) -> Failed:
    outcome = outcome_of(worker, part)
    assert isinstance(outcome, Failed), outcome
    return outcome


@pytest.fixture
def bad_rows(tmp_path: Path) -> Path:
    """Every second line is wrong in its own way."""
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "truncated.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    wrong: list[Any] = [
        {"id": 1, "text": ""},
        {"id": "two", "text": "a", "image": "absent.png"},
        {"id": 3, "text": "a", "image": "truncated.png"},
        {"id": 4, "text": "a", "imgae": "a.png"},
        {"id": 5, "text": 5},
        {"id": 6, "words": 6},
        {"id": 7, "text": "a", "words": ["a"]},
        {"id": 8, "text": "a", "image": "a.png", "boxes": [[0, 0, 500, 1]]},
        {"id": {"deep": [9]}, "text": "\ud800"},
        ["no", "object"],
    ]
    lines = [json.dumps(row).encode() for row in wrong]
    lines += [b'{"id": 44, "text": "broken \xff utf-8"}', b"{", b"\x00" * 9, b"[" * 9_000]
    good = json.dumps({"text": "fine", "image": "a.png"}).encode()
    (tmp_path / "tweets.jsonl").write_bytes(b"\n\n".join(line for bad in lines for line in (bad, good)) + b"\n")
    return tmp_path / "tweets.jsonl"


def test_bad_rows_are_told_apart(ner_bundle: Path, bad_rows: Path) -> None:
    job = Job(ner_bundle, bad_rows, bad_rows.with_name("out.jsonl"))
    (part,) = parts_of(job)
    outcome = done(annotator(job), part)
    rejected = [json.loads(line) for line in outcome.rejected.splitlines()]
    lines = bad_rows.read_bytes().split(b"\n")
    assert [row["row"] for row in rejected] == list(range(1, 56, 4))
    for row in rejected:
        assert row["line"].encode("utf-8", "surrogateescape") == lines[row["row"] - 1]
    assert [row["error"]["type"] for row in rejected] == [
        *("TextError", "PictureError", "PictureError", "InputError", "TextError", "InputError", "InputError"),
        *("PictureError", "TextError", "InputError", "TextError", "InputError", "InputError", "InputError"),
    ]
    assert [row["id"] for row in rejected[:10]] == [1, "two", 3, 4, 5, 6, 7, 8, {"deep": [9]}, None]
    assert "absent.png" in rejected[1]["error"]["message"]
    assert outcome.rejections == 14
    assert len(outcome.answers.splitlines()) == 14


def test_a_rejected_row_does_not_hold_a_picture(ner_bundle: Path, tmp_path: Path) -> None:
    lines = [{"id": size, "text": "", "image": "A" * size} for size in (1_000, 100_000)]
    (tmp_path / "tweets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job(ner_bundle, tmp_path / "tweets.jsonl", tmp_path / "out.jsonl")
    (part,) = parts_of(job)
    short, long = map(json.loads, done(annotator(job), part).rejected.splitlines())
    assert json.loads(short["line"]) == lines[0]
    assert (long["row"], long["id"], "line" in long) == (2, 100_000, False)


def test_odd_ids_end_no_run_and_are_json(ner_bundle: Path, tmp_path: Path) -> None:
    ids = pa.array([1.5, float("nan"), None, float("-inf"), 2.0])
    pq.write_table(pa.table({"id": ids, "text": ["Jordan"] * 5}), tmp_path / "tweets.parquet")
    for name in ("out.jsonl", "out.parquet"):
        job = Job(ner_bundle, tmp_path / "tweets.parquet", tmp_path / name)
        (part,) = parts_of(job)
        outcome = done(annotator(job), part)
        rejected = [json.loads(line, parse_constant=pytest.fail) for line in outcome.rejected.splitlines()]
        assert [(row["row"], row["id"], row["error"]["type"]) for row in rejected] == [
            (2, None, "InputError"),
            (4, None, "InputError"),
        ]
        if name == "out.jsonl":
            found = [json.loads(line, parse_constant=pytest.fail)["id"] for line in outcome.answers.splitlines()]
        else:
            found = pq.read_table(BytesIO(outcome.answers)).column("id").to_pylist()
        assert found == [1.5, None, 2.0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("a.png"),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)
NAMES = st.sampled_from(["id", "text", "words", "image", "objects", "boxes", "head", "tail"])


@pytest.fixture(scope="module")
def pipelines(ner_bundle: Path, re_bundle: Path) -> Iterator[list[Pipeline]]:
    with Pipeline.load(ner_bundle) as entities, Pipeline.load(re_bundle) as relations:
        yield [entities, relations]


@settings(max_examples=300, deadline=None)
@given(values=st.dictionaries(NAMES, VALUES, max_size=5))
def test_whatever_a_row_says_it_is_answered_or_refused(pipelines: list[Pipeline], values: dict[str, Any]) -> None:
    for pipeline in pipelines:
        with suppress(InputError):
            prepared = pipeline.prepare(tweet_from_dict(values, Path("nowhere")))
            assert len(pipeline.run([prepared])) == 1


def test_an_error_nobody_expected_is_still_only_its_row(
    ner_bundle: Path, bad_rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(ner_bundle, bad_rows, bad_rows.with_name("out.jsonl"))
    monkeypatch.setattr(Pipeline, "prepare", lambda *_: {}["surprise"])
    (part,) = parts_of(job)
    outcome = done(annotator(job), part)
    assert outcome.answers == b""
    assert json.loads(outcome.rejected.splitlines()[1])["error"] == {"type": "KeyError", "message": "'surprise'"}


def test_bytes_do_not_depend_on_the_parts_before_nor_on_threads(ner_bundle: Path, entities: Any) -> None:
    job = Job(ner_bundle, entities.write_lines("worker.jsonl"), entities.folder / "out.jsonl", part_rows=8)
    parts = parts_of(job)[:3]
    fresh = [done(annotator(job), part) for part in parts]
    for threads, order in [(1, (2, 0, 1)), (2, (1, 1, 0))]:
        one = annotator(job, threads)
        for number in order:
            assert done(one, parts[number]) == fresh[number]


def test_an_engine_that_fails_is_no_bad_row(ner_bundle: Path, bad_rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BackendError("out of\nmemory")

    monkeypatch.setattr(Pipeline, "start", fail)
    job = Job(ner_bundle, bad_rows, bad_rows.with_name("out.jsonl"))
    (part,) = parts_of(job)
    outcome = failed(annotator(job), part)
    assert isinstance(outcome.error, BackendError)
    assert str(outcome.error) == "out of\nmemory"
    assert "Traceback" in outcome.trace


def test_memory_that_runs_out_is_no_bad_row(ner_bundle: Path, bad_rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Pipeline, "prepare", fail)
    job = Job(ner_bundle, bad_rows, bad_rows.with_name("out.jsonl"))
    (part,) = parts_of(job)
    assert str(failed(annotator(job), part).error) == f"MemoryError in part {part.number}: "


def test_what_cannot_be_done_is_said(ner_bundle: Path, re_bundle: Path, bad_rows: Path) -> None:
    job = Job(ner_bundle, bad_rows, bad_rows.with_name("out.jsonl"))
    (part,) = parts_of(job)
    outcome = failed(annotator(job, digest=replace(job, bundle=re_bundle).digest()), part)
    assert isinstance(outcome.error, BundleError)
    assert "copy the same bundle to all" in str(outcome.error)
    outcome = failed(annotator(replace(job, backend="tensorrt")), part)
    assert isinstance(outcome.error, BackendError | MissingExtraError)
    for shrunk in (replace(part, rows=part.rows + 1), replace(part, start=10**6)):
        outcome = failed(annotator(job), shrunk)
        assert isinstance(outcome.error, BulkError)
        assert "has changed since the run began" in str(outcome.error)
    job.input.unlink()
    assert isinstance(failed(annotator(job), part).error, InputError)
