"""Parts: every row in exactly one, whatever the input looks like."""

import json
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet_runtime import InputError, Tweet, jsonl
from hvpnet_runtime.bulk import source as module
from hvpnet_runtime.bulk.source import Part, Source, open_source
from hvpnet_runtime.jsonl import FileRow, LineRow, LongLineRow, read_rows


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "tweets.jsonl"
    for content, expected in [
        (b'\xef\xbb\xbf{"id": 1}\n{"id": 2}\n', [(1, '{"id": 1}'), (2, '{"id": 2}')]),
        (b'\xef\xbb\xbf\n{"id": 2}', [(2, '{"id": 2}')]),
        (b"\xef\xbb\xbf", []),
        (b'{"id": 1}\n\xef\xbb\xbf', [(1, '{"id": 1}'), (2, "\ufeff")]),  # elsewhere it is what it is
    ]:
        path.write_bytes(content)
        assert read_all(open_source(path), 1) == expected
        assert [(row.number, row.line) for row in read_rows(path)] == expected


LINES = st.lists(
    st.sampled_from([b"", b"  \t", b"\r", b'{"id": 1}', b'{"id": "\xc3\xa9"}\r', b"\xff{", b"[]"]), max_size=30
)


def without_line_ends(content: bytes) -> bytes:
    return content.translate(None, b"\r\n")


def read_all(source: Source, part_rows: int) -> list[tuple[int, Any]]:
    parts = source.index(part_rows, lambda _: None)
    assert [part.number for part in parts] == list(range(len(parts)))
    found = []
    for part in reversed(parts):  # in any order, each on its own
        rows = list(source.read(part))
        assert len(rows) == part.rows
        assert rows[0].number == part.first
        found = rows + found
    return [(row.number, seen(row)) for row in found]


def seen(row: FileRow) -> Any:
    if isinstance(row, LineRow | LongLineRow):
        return row.line if isinstance(row, LineRow) else row.characters
    return row.values()


@given(lines=LINES, last=st.booleans(), part_rows=st.integers(1, 7))
def test_every_line_that_is_not_blank_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], last: bool, part_rows: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "tweets.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if last else b""))
    expected = [
        (number, line.decode("utf-8", "surrogateescape").rstrip("\r"))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    assert read_all(open_source(path), part_rows) == expected


@given(
    lines=st.lists(
        st.text("a \t\u20ac\U0001f600", max_size=60).map(str.encode) | st.binary(max_size=60).map(without_line_ends),
        max_size=9,
    ),
    marked=st.booleans(),
    last=st.booleans(),
    part_rows=st.integers(1, 4),
)
def test_a_line_that_is_too_long_is_one_row_and_moves_no_other(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], marked: bool, last: bool, part_rows: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "tweets.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * marked + b"\n".join(lines) + b"\n" * last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "LONGEST_LINE", 5)
        found = read_all(open_source(path), part_rows)
        assert [(row.number, seen(row)) for row in read_rows(path)] == found
    numbered = [
        (number, line.decode("utf-8", "surrogateescape")) for number, line in enumerate(lines, 1) if line.strip()
    ]
    assert found == [(number, text if len(text) <= 5 else len(text)) for number, text in numbered]


def test_a_long_line_takes_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    path, size = tmp_path / "tweets.jsonl", 100 * 2**20
    with path.open("wb") as file:
        file.truncate(size)  # a hole of zeros, which costs no disk
        file.seek(size)
        file.write(b'\n{"id": 2}')
    tracemalloc.start()
    found = read_all(open_source(path), 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(1, size), (2, '{"id": 2}')]
    assert peak < 40 * 2**20


@given(groups=st.lists(st.integers(1, 9), max_size=6), part_rows=st.integers(1, 11))
def test_parts_of_parquet_do_not_depend_on_row_groups(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], part_rows: int
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "tweets.parquet"
    rows = [{"id": row, "text": f"row {row}"} for row in range(sum(groups))]
    schema = pa.schema([("id", pa.int32()), ("text", pa.string())])
    table = pa.Table.from_pylist(rows, schema)
    with pq.ParquetWriter(path, schema) as writer:
        start = 0
        for size in groups:
            writer.write_table(table.slice(start, size))
            start += size
    assert read_all(open_source(path), part_rows) == list(enumerate(rows, 1))


def test_rows_beyond_one_batch_of_a_row_group(tmp_path: Path) -> None:
    rows = [{"text": str(row)} for row in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tweets.parquet")
    assert read_all(open_source(tmp_path / "tweets.parquet"), 130) == list(enumerate(rows, 1))


def test_rows_that_are_gone_are_not_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "tweets.parquet")
    source = open_source(tmp_path / "tweets.parquet")
    assert [row.number for row in source.read(Part(0, 2, 5, 1))] == [2]
    assert list(source.read(Part(0, 8, 5, 7))) == []


def test_huge_files_have_no_more_than_the_most_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 4)
    (tmp_path / "tweets.jsonl").write_bytes(b"{}\n" * 25)
    pq.write_table(pa.table({"text": ["a"] * 25}), tmp_path / "tweets.parquet")
    for name in ("tweets.jsonl", "tweets.parquet"):
        parts = open_source(tmp_path / name).index(2, lambda _: None)
        assert [part.rows for part in parts] == [8, 8, 8, 1]
        assert [part.first for part in parts] == [1, 9, 17, 25]


def test_progress_adds_up(tmp_path: Path) -> None:
    (tmp_path / "tweets.jsonl").write_bytes(b"{}\n\n{}")
    pq.write_table(pa.table({"text": ["a"] * 25}), tmp_path / "tweets.parquet")
    for name in ("tweets.jsonl", "tweets.parquet"):
        source, ticks = open_source(tmp_path / name), []
        source.index(2, ticks.append)
        assert sum(ticks) == source.size


def test_text_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    wrong = pa.array([b"good", b"\xff\xfe"]).cast(pa.binary())
    text = pa.StringArray.from_buffers(2, wrong.buffers()[1], wrong.buffers()[2])
    pq.write_table(pa.table({"text": text}), tmp_path / "tweets.parquet")
    good, bad = open_source(tmp_path / "tweets.parquet").read(Part(0, 1, 2, 0))
    assert good.values() == {"text": "good"}
    assert good.tweet() == Tweet(text="good")
    with pytest.raises(InputError, match="not UTF-8"):
        bad.tweet()
    assert bad.id() is None


@pytest.mark.parametrize(
    "image",
    [
        pa.array([2**62, None], pa.timestamp("us")),
        pa.array([2**30, None], pa.date32()),
        pa.array([0, None], pa.timestamp("us", "Nowhere/Land")),
        pa.StructArray.from_arrays([pa.array([b"a"] * 2)] * 2, ["bytes", "bytes"], mask=pa.array([False, True])),
    ],
    ids=lambda image: str(image.type),
)
def test_a_value_that_python_does_not_have_is_one_bad_row(tmp_path: Path, image: pa.Array) -> None:
    pq.write_table(pa.table({"id": ["bad", "good"], "text": ["a", "b"], "image": image}), tmp_path / "tweets.parquet")
    bad, good = open_source(tmp_path / "tweets.parquet").read(Part(0, 1, 2, 0))
    with pytest.raises(InputError, match="a value cannot be read"):
        bad.tweet()
    assert bad.id() == "bad"
    assert good.tweet() == Tweet(id="good", text="b")


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tweets.csv").write_text("id,text\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    pq.write_table(pa.table({"text": ["a"], "txet": ["b"]}), tmp_path / "unknown.parquet")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array(["a"])], ["id", "id", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    pq.write_table(pa.table({f"column {number}": [0] for number in range(5000)}), tmp_path / "wide.parquet")
    for name, message in [
        ("wide.parquet", r"has columns \['column 0', 'column 1', .*\.\.\.\]: drop or rename them"),
        ("absent.jsonl", "is not a file"),
        ("tweets.csv", r"must end in \.jsonl, \.ndjson, \.parquet"),
        ("broken.parquet", "not a Parquet file, or damaged"),
        ("unknown.parquet", r"has columns \['txet'\]: drop or rename"),
        ("twice.parquet", "has more than one column id: drop or rename the others"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            open_source(tmp_path / name)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, 2], pa.uint8()), pa.uint8()),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
        (pa.array([None, None]), pa.null()),
    ],
)
def test_ids_keep_their_type(tmp_path: Path, ids: pa.Array, expected: pa.DataType) -> None:
    pq.write_table(pa.table({"id": ids, "text": ["a", "b"]}), tmp_path / "tweets.parquet")
    source = open_source(tmp_path / "tweets.parquet")
    assert source.id_type == expected
    (part,) = source.index(5, lambda _: None)
    assert json.dumps([row.id() for row in source.read(part)]) == json.dumps(ids.to_pylist())


NAN, DEEP = float("nan"), [[[[[[[[[1]]]]]]]]]


@pytest.mark.parametrize(
    ("ids", "type_", "expected"),
    [
        (pa.array([1.5, None]), pa.float64(), [1.5, None]),
        (pa.array([1.5, NAN, float("inf")], pa.float32()), pa.float32(), [1.5, "nan, which JSON", "inf, which JSON"]),
        (pa.array([True, None]), pa.bool_(), [True, None]),
        (pa.array([1767323045, None], pa.timestamp("s")), pa.string(), ["2026-01-02T03:04:05", None]),
        (pa.array([1], pa.timestamp("ns", "Asia/Tokyo")), pa.string(), ["1970-01-01T09:00:00.000000001+09:00"]),
        (pa.array([2**31 - 1], pa.date32()), pa.string(), ["cast its column to text"]),
        (pa.array([0], pa.timestamp("us", "Nowhere/Land")), pa.string(), ["cast its column to text"]),
        (pa.array([Decimal("1.50")]), pa.string(), ["1.50"]),
        (pa.array([b"seven", b"\xff\xd8"]), pa.string(), ["seven", "not UTF-8"]),
        (pa.array([{"a": [1.0]}, {"a": [NAN]}]), pa.string(), [{"a": [1.0]}, "nan, which JSON"]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), pa.string(), [[["k", 1]]]),
        (pa.array([DEEP]), pa.string(), [DEEP]),
        (pa.array([[[[[DEEP]]]]]), pa.string(), ["nested more than 12 levels deep"]),
    ],
    ids=str,
)
def test_odd_ids_are_json_or_their_row_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: pa.Array, type_: pa.DataType, expected: list[Any]
) -> None:
    monkeypatch.setattr(module, "MOST_LEVELS", 12)
    pq.write_table(pa.table({"id": ids, "text": ["a"] * len(ids)}), tmp_path / "tweets.parquet")
    source = open_source(tmp_path / "tweets.parquet")
    assert source.id_type == type_
    (part,) = source.index(100, lambda _: None)
    for row, value in zip(source.read(part), expected, strict=True):
        found = json.dumps(row.id(), allow_nan=False)
        if found == "null" and value is not None:
            with pytest.raises(InputError, match=rf"^.{{,100}}{value}.{{,100}}$"):
                row.tweet()
        else:
            assert found == json.dumps(value) == json.dumps(row.tweet().id)


def test_a_damaged_page_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tweets.parquet"
    pq.write_table(pa.table({"text": [f"row {row}" for row in range(1000)]}), path, compression="none")
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"tweets\.parquet cannot be read after row 0: "):
        list(open_source(path).read(Part(0, 1, 1000, 0)))
