"""Answers as files: parts and their sum hold the same values."""

import json
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hvpnet_runtime import Entity, EntityResult, InputError, Mention, RelationResult
from hvpnet_runtime.bulk import answers as module
from hvpnet_runtime.bulk.answers import answers_for

ENTITIES = [
    EntityResult(
        7, (Entity("Jordan", "PER", 0, 6, 0, 0, 0.98), Entity("é 🌴", "LOC", 7, 10, 1, 2, 0.1)), ("B-PER",), 0
    ),
    EntityResult("seven", (), (), 3),
    EntityResult(None, (), ("O", "O"), 0),
    EntityResult({"a": [1]}, (), ("O",), 0),
    EntityResult("\ud800", (), ("O",), 0),
    EntityResult(2**70, (), ("O",), 0),
]
RELATIONS = [
    RelationResult(row, "/per/per/peer", row / 7, Mention("Ford", 0, 4), Mention("GM", 9, 11 + row), row)
    for row in range(5)
]


def as_json(values: Any) -> Any:
    return json.loads(json.dumps(values))


def parts_of(answers: Any, results: list[Any], sizes: list[int]) -> list[bytes]:
    contents, start = [], 0
    for size in sizes:
        contents.append(answers.encode(result.to_dict() for result in results[start : start + size]))
        assert answers.count(BytesIO(contents[-1])) == size
        start += size
    return contents


@pytest.mark.parametrize("results", [ENTITIES, RELATIONS], ids=["ner", "re"])
def test_json_lines(tmp_path: Path, results: list[Any]) -> None:
    out = tmp_path / "out.jsonl"
    answers = answers_for(out, "ner", pa.string())
    answers.join(parts_of(answers, results, [2, 0, len(results) - 2]), out)
    found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert found == [as_json(result.to_dict()) for result in results]


def test_parquet_of_entities_from_json_lines_has_text_as_ids(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    answers = answers_for(out, "ner", pa.string())
    answers.join(parts_of(answers, ENTITIES, [2, 0, 4]), out)
    expected = [as_json(result.to_dict()) for result in ENTITIES]
    for row, id_ in zip(expected, ["7", "seven", None, '{"a": [1]}', "\\ud800", str(2**70)], strict=True):
        row["id"] = id_
    assert pq.read_table(out).to_pylist() == expected


@pytest.mark.parametrize(("limit", "most", "groups"), [("_GROUP_ROWS", 3, [4, 1]), ("_GROUP_BYTES", 1, [1, 1, 2, 1])])
def test_parquet_of_relations_keeps_integer_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, groups: list[int]
) -> None:
    """In row groups that are large, but not beyond what memory should hold."""
    monkeypatch.setattr(module, limit, most)
    out = tmp_path / "out.parquet"
    answers = answers_for(out, "re", pa.uint16())
    answers.join(parts_of(answers, RELATIONS, [1, 1, 2, 1]), out)
    table = pq.read_table(out)
    assert table.to_pylist() == [result.to_dict() for result in RELATIONS]
    assert table.schema.field("id").type == pa.uint16()
    written = pq.read_metadata(out)
    assert [written.row_group(group).num_rows for group in range(written.num_row_groups)] == groups


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_no_answers_are_a_file_too(tmp_path: Path, name: str) -> None:
    answers = answers_for(tmp_path / name, "ner", pa.string())
    answers.join([], tmp_path / name)
    with (tmp_path / name).open("rb") as file:
        assert answers.count(file) == 0


def test_unknown_endings_are_refused() -> None:
    with pytest.raises(InputError, match=r"out\.csv must end in \.jsonl"):
        answers_for(Path("out.csv"), "ner", pa.string())


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_rows_are_not_all_in_memory_as_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(module, "_ENCODED_ROWS", 64)
    answers = answers_for(tmp_path / name, "ner", pa.string())
    result = EntityResult("seven", (Entity("Jordan", "PER", 0, 6, 0, 0, 0.98),) * 5, ("B-PER",) * 20, 0)
    answers.encode([result.to_dict()])  # imports what it needs
    tracemalloc.start()
    try:
        content = answers.encode(result.to_dict() for _ in range(1_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answers.count(BytesIO(content)) == 1_000
    assert peak < 1.2 * 2**20  # as objects they take 1.8 MiB, as JSON lines 0.7
