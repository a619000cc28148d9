"""The work folder: what survives, what is refused, and that no row is missed."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from filelock import FileLock

from hvpnet_runtime.bulk.answers import JsonLinesAnswers, ParquetAnswers
from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.work import WorkFolder, _digest
from hvpnet_runtime.errors import BulkError, ResumeError

PARTS = [Part(0, 1, 3, 0), Part(1, 4, 3, 60), Part(2, 8, 1, 130)]
ANSWERS = JsonLinesAnswers()
RUN = {"bundle": "abc", "window": False}


def answered(*ids: int) -> bytes:
    return ANSWERS.encode([{"id": number} for number in ids])


def rejected(*rows: int) -> bytes:
    return ANSWERS.encode({"row": row, "error": {"type": "TextError", "message": "empty"}} for row in rows)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def hold(output: Path) -> AbstractContextManager[WorkFolder]:
    return WorkFolder.hold(output, side_of(output))


def side_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.rejected.jsonl")


def finish_all(work: WorkFolder) -> None:
    work.finish(PARTS[0], answered(1, 2), rejected(3))
    work.finish(PARTS[1], answered(), rejected(4, 5, 6))
    work.finish(PARTS[2], answered(7), b"")


def test_parts_finished_before_an_interruption_are_kept(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        work.finish(PARTS[1], answered(4, 5, 6), b"")
    with hold(output) as work:
        work.begin(RUN, lambda: pytest.fail("the input is cut into parts once"))
        assert work.parts == PARTS
        assert work.unfinished() == [PARTS[0], PARTS[2]]


def test_a_part_is_finished_by_its_digests_and_not_before(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        work.finish(PARTS[0], answered(1, 2), rejected(3))
        work.digests(PARTS[0]).rename(f"{work.digests(PARTS[0])}.unfinished")  # killed between two files
        assert work.unfinished() == PARTS
        work.finish(PARTS[0], answered(1, 2, 3), b"")  # the picture is back meanwhile
        assert work.rejected(PARTS[0]).read_bytes() == b""


def test_joined_in_order(output: Path) -> None:
    side = side_of(output)
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        assert work.join(ANSWERS, output, side) == (3, {"TextError": 4})
        work.remove()
    assert output.read_bytes() == answered(1, 2, 7)
    assert side.read_bytes() == rejected(3, 4, 5, 6)
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


def test_joined_files_are_on_the_disk_before_their_names_and_those_before_parts_go(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, replace, fsync = [], Path.replace, os.fsync

    def noted(path: Path, target: Path) -> Path:
        steps.append(("name", target.name))
        return replace(path, target)

    def flushed(descriptor: int) -> None:
        steps.append(("flush", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        monkeypatch.setattr(Path, "replace", noted)
        monkeypatch.setattr(os, "fsync", flushed)
        work.join(ANSWERS, output, side_of(output))
    names = [("name", "out.jsonl.rejected.jsonl"), ("name", "out.jsonl")]
    assert [step for step in steps if step[0] == "name"] == names
    assert steps.index(("flush", "joined.rejected")) < steps.index(names[0])
    assert steps.index(("flush", "joined")) < steps.index(names[1])
    assert steps[-1] == ("flush", output.parent.name)


class Losing(JsonLinesAnswers):
    """Joins all files but the last."""

    def join(self, contents: Iterable[bytes], out: Path) -> int:
        return super().join(list(contents)[:-1], out)


def test_rows_that_are_lost_in_joining_are_an_error(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        with pytest.raises(BulkError, match=r"joined and what was rejected are 6 rows of 7: run again"):
            work.join(Losing(), output, side_of(output))
        assert not output.exists()
        assert work.unfinished() == []


def test_an_output_that_another_run_finishes_meanwhile_is_not_touched(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = FileLock.acquire

    def finished_meanwhile(*arguments: Any, **options: Any) -> Any:
        output.write_text("precious")
        return acquire(*arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", finished_meanwhile)
    with pytest.raises(BulkError, match=r"out\.jsonl exists"), hold(output):
        pass
    assert output.read_text() == "precious"
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]


def test_killed_after_joining_it_joins_again(output: Path) -> None:
    side = side_of(output)
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        work.join(ANSWERS, output, side)
    first = output.read_bytes(), side.read_bytes()
    with hold(output) as work:
        work.begin(RUN, lambda: pytest.fail("known"))
        assert work.unfinished() == []
        work.join(ANSWERS, output, side)
        work.remove()
    assert (output.read_bytes(), side.read_bytes()) == first


def test_killed_while_clearing_up_it_is_complete(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        work.join(ANSWERS, output, side_of(output))
        (work.path / "manifest.json").unlink()
    with pytest.raises(BulkError, match=r"out\.jsonl exists"), hold(output):
        pass
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.jsonl", "out.jsonl.rejected.jsonl"]


def test_without_rejected_rows_there_is_no_side_file(output: Path) -> None:
    side = side_of(output)
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS[:1])
        work.finish(PARTS[0], answered(1, 2, 3), b"")
        assert work.join(ANSWERS, output, side) == (3, {})
    assert not side.exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.rejected.jsonl"])
def test_an_existing_file_is_not_touched(output: Path, name: str) -> None:
    output.with_name(name).write_text("precious")
    with pytest.raises(BulkError, match=rf"{name} exists: remove it or choose another name"), hold(output):
        pass
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_two_runs_do_not_share_an_output(output: Path) -> None:
    with (
        hold(output),
        pytest.raises(BulkError, match=r"another run is at work on .*out\.jsonl: wait"),
        hold(output),
    ):
        pass
    with hold(output):
        pass


@pytest.mark.parametrize(("name", "value"), [("bundle", "other"), ("window", True), ("new", 1)])
def test_another_run_is_not_taken_up(output: Path, name: str, value: object) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        work.finish(PARTS[0], answered(1, 2, 3), b"")
    with (
        hold(output) as work,
        pytest.raises(ResumeError, match=rf"interrupted run with another {name}: .* or remove the folder"),
    ):
        work.begin({**RUN, name: value}, lambda: PARTS)
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        assert len(work.unfinished()) == 2


def test_of_another_run_without_a_finished_part_nothing_is_lost(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        work.begin({**RUN, "window": True}, lambda: PARTS[:2])
        assert work.unfinished() == PARTS[:2]


@pytest.mark.parametrize(
    ("answers", "side"),
    [((1,), (3,)), ((1, 2), ()), ((1, 2, 3), (3,)), ((), ())],
    ids=["answer lost", "rejected lost", "one too many", "both lost"],
)
def test_rows_that_do_not_add_up_are_an_error(output: Path, answers: Sequence[int], side: Sequence[int]) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        work.finish(PARTS[0], answered(*answers), rejected(*side))
        with pytest.raises(BulkError, match=r"00000\.jsonl and what was rejected are \d rows of 3: remove it and run"):
            work.join(ANSWERS, output, side_of(output))
    assert not output.exists()


def test_a_damaged_part_is_named(output: Path) -> None:
    output = output.with_suffix(".parquet")
    answers = ParquetAnswers("re", pa.int64())
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS[2:])
        work.finish(PARTS[2], answers.encode([{"id": 1}])[:-9], b"")
        with pytest.raises(BulkError, match=r"00002\.parquet cannot be read .* remove it and run again"):
            work.join(answers, output, side_of(output))
        work.answers(PARTS[2]).unlink()
        assert work.unfinished() == PARTS[2:]


def test_digests_are_as_sha256sum_writes_them(output: Path) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        work.finish(PARTS[1], b"answers", b"rejected")
        lines = f"{sha256(b'answers').hexdigest()}  00001.jsonl\n{sha256(b'rejected').hexdigest()}  00001.rejected\n"
        assert work.digests(PARTS[1]).read_text() == lines


CHANGES: dict[str, Callable[[WorkFolder, Part], object]] = {
    "answers": lambda work, part: work.answers(part).write_bytes(answered(1, 9)),
    "rejected": lambda work, part: work.rejected(part).write_bytes(rejected(9)),
    "digests": lambda work, part: work.digests(part).write_bytes(b"\xff"),
    "answers gone": lambda work, part: work.answers(part).unlink(),
    "another part's digests": lambda work, part: work.digests(part).write_bytes(work.digests(PARTS[1]).read_bytes()),
}
"""Damages of finished parts, which leave as many rows as before, or none."""


@pytest.mark.parametrize("change", CHANGES)
def test_a_part_that_changed_is_refused_and_done_again(
    output: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    changed = r"00000\.jsonl or 00000\.rejected has changed since it was written"
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        CHANGES[change](work, PARTS[0])
        with pytest.raises(BulkError, match=rf"{changed}: run again to do its rows anew"):
            work.join(ANSWERS, output, side_of(output))
        assert not output.exists()
    with hold(output) as work:
        work.begin(RUN, lambda: pytest.fail("known"))
        assert work.unfinished() == [PARTS[0]]
        (record,) = caplog.records
        assert record.getMessage().endswith(
            "00000.jsonl or 00000.rejected has changed since it was written: its rows are done anew"
        )
        work.finish(PARTS[0], answered(1, 2), rejected(3))
        work.join(ANSWERS, output, side_of(output))
    assert output.read_bytes() == answered(1, 2, 7)
    assert side_of(output).read_bytes() == rejected(3, 4, 5, 6)


def with_digest(values: dict[str, Any]) -> bytes:
    return json.dumps({**values, "sha256": _digest(values)}).encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b'"text"', b"7", b"NaN", b"{}", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{"),
        *(b'{"run": {}}', b'{"run": {}, "parts": []}', b'{"run": {}, "parts": [], "sha256": 7}'),
        *(with_digest({"run": RUN}), with_digest({"run": RUN, "parts": 5}), with_digest({"run": RUN, "parts": [[1]]})),
        with_digest({"run": RUN, "parts": [[0, 1, 3, 0]]}).replace(b"3", b"2"),
    ],
    ids=lambda content: str(content[:40]),
)
def test_a_damaged_manifest_is_named_with_the_cure(output: Path, content: bytes) -> None:
    with hold(output) as work:
        work.begin(RUN, lambda: PARTS)
        finish_all(work)
        (work.path / "manifest.json").write_bytes(content)
    with hold(output) as work, pytest.raises(BulkError) as raised:
        work.begin(RUN, lambda: pytest.fail("parts are finished"))
    expected = f"{work.path}/manifest.json is damaged: remove the folder {work.path} to begin anew"
    assert str(raised.value) == expected
    assert work.answers(PARTS[0]).read_bytes() == answered(1, 2)


def test_where_there_cannot_be_a_folder(output: Path) -> None:
    output.with_name("out.jsonl.work").write_text("mine")
    with (
        pytest.raises(BulkError, match=r"out\.jsonl\.work cannot be the folder of finished parts: File exists"),
        hold(output),
    ):
        pass
    assert output.with_name("out.jsonl.work").read_text() == "mine"
