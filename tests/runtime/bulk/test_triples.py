"""`hvpnet triples`: the machinery of bulk runs with two bundles."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rdflib import RDF, Graph

from hvpnet.cli import main
from hvpnet_runtime import Pipeline, TriplePipeline, Tweet
from hvpnet_runtime.bulk import Local, TripleJob, annotate
from hvpnet_runtime.bulk.work import WorkFolder
from hvpnet_runtime.errors import BulkError, InputError

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("capitals")]

ROWS = [
    {"id": "a", "text": "Jordan met Florence at UNICEF , Georgia !"},
    {"id": 2, "words": ["Paris", "and", "UNICEF"]},
    {"text": ""},
    {"text": "Messi of Barcelona"},
    {"id": "c", "text": "Adele", "image": "none.jpg"},
]


@pytest.fixture(scope="module")
def posts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("posts") / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def expected(ner_bundle: Path, re_bundle: Path, threshold: float = 0) -> list[dict[str, Any]]:
    good = [Tweet(**row) for row in (ROWS[0], ROWS[1], ROWS[3])]  # type: ignore[arg-type]
    with TriplePipeline(
        Pipeline.load(ner_bundle, "onnxruntime-cpu"),
        Pipeline.load(re_bundle, "onnxruntime-cpu"),
        threshold=threshold,
    ) as pipeline:
        return [json.loads(json.dumps(result.to_dict())) for result in pipeline(good)]


def test_json_lines_and_parquet(
    ner_bundle: Path,
    re_bundle: Path,
    posts: Path,
    tmp_path: Path,
    assert_equal: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = expected(ner_bundle, re_bundle)
    assert sum(len(row["triples"]) for row in known) >= 3
    for name in ("out.jsonl", "out.parquet"):
        out = tmp_path / name
        code = main(["triples", *map(str, (ner_bundle, re_bundle, posts, out)), "--json", "--part-rows", "2"])
        assert code == 1  # two are rejected
        shown = json.loads(capsys.readouterr().out)
        assert {key: shown[key] for key in ("rows", "annotated", "rejected", "errors")} == {
            "rows": 5, "annotated": 3, "rejected": 2, "errors": {"TextError": 1, "PictureError": 1},
        }  # fmt: skip
        rejected = [json.loads(line) for line in Path(f"{out}.rejected.jsonl").read_text().splitlines()]
        assert [(each["row"], each["id"], each["error"]["type"]) for each in rejected] == [
            (3, None, "TextError"), (5, "c", "PictureError"),
        ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [_rounded(row) for row in lines] == [_rounded(row) for row in known]
    columns = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for row, line in zip(columns, lines, strict=True):
        assert row.pop("id") == (line["id"] if line["id"] is None or isinstance(line["id"], str) else str(line["id"]))
        for triple in row["triples"]:
            triple["probabilities"] = dict(triple["probabilities"])
        assert row == {name: value for name, value in line.items() if name != "id"}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return {name: _rounded(each) for name, each in value.items()} if isinstance(value, dict) else value


def test_graphs_and_thresholds(ner_bundle: Path, re_bundle: Path, posts: Path, tmp_path: Path) -> None:
    scores = sorted(triple["score"] for row in expected(ner_bundle, re_bundle) for triple in row["triples"])
    threshold = (scores[0] + scores[1]) / 2  # all but one
    arguments = ["triples", str(ner_bundle), str(re_bundle), str(posts)]
    given = ["--threshold", str(threshold), "--format"]
    assert main([*arguments, str(tmp_path / "graph"), *given, "neo4j"]) == 1
    assert main([*arguments, str(tmp_path / "graph.nt"), *given, "ntriples"]) == 1
    with (tmp_path / "graph" / "edges.csv").open(newline="") as file:
        edges = list(csv.DictReader(file))
    assert len(edges) == len(scores) - 1
    assert {(edge["post"], edge["row:long"]) for edge in edges} <= {("a", "1"), ("2", "2"), ("", "4")}
    assert sorted(float(edge["score:double"]) for edge in edges) == pytest.approx(scores[1:], abs=1e-5)
    graph = Graph().parse(tmp_path / "graph.nt", format="nt")
    assert len(list(graph.subjects(RDF.type, RDF.Statement))) == len(edges)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".work")]


def test_goes_on_where_it_was(
    ner_bundle: Path, re_bundle: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = TripleJob(ner_bundle, posts, tmp_path / "graph", relations=re_bundle, part_rows=2, format="neo4j")
    done = list[int]()
    prepare = TriplePipeline.prepare

    def count(pipeline: TriplePipeline, tweet: Tweet) -> Any:
        done.append(1)
        if tweet.text == ROWS[3]["text"] and len(done) < 5:
            raise MemoryError
        return prepare(pipeline, tweet)

    monkeypatch.setattr(TriplePipeline, "prepare", count)
    with pytest.raises(BulkError, match="MemoryError in part 1"):
        annotate(job, Local())
    monkeypatch.setattr(TriplePipeline, "prepare", prepare)
    report = annotate(job, Local())
    assert (report.rows, report.annotated, report.resumed) == (5, 3, 2)
    other = TripleJob(ner_bundle, posts, tmp_path / "other", relations=re_bundle, format="neo4j")
    annotate(other, Local())
    for name in ("nodes.csv", "edges.csv"):
        assert (job.output / name).read_bytes() == (other.output / name).read_bytes()


def test_a_run_that_was_killed_at_its_end(
    ner_bundle: Path, re_bundle: Path, posts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its folder got its name, before the parts were removed; a folder of somebody else is not touched."""
    job = TripleJob(ner_bundle, posts, tmp_path / "graph", relations=re_bundle, format="neo4j")
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            annotate(job, Local())
    written = (job.output / "edges.csv").read_bytes()
    (job.output / "mine.txt").write_text("mine")
    with pytest.raises(BulkError, match="holds files that are not of this run"):
        annotate(job, Local())
    (job.output / "mine.txt").unlink()
    assert annotate(job, Local()).resumed == 5
    assert (job.output / "edges.csv").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir() if "work" in path.name] == []


def test_what_is_refused(
    ner_bundle: Path, re_bundle: Path, posts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    for arguments, message in (
        ((re_bundle, ner_bundle, posts, out), "is for the task re: give one for ner"),
        ((ner_bundle, re_bundle, posts, tmp_path / "out.csv"), "must end in .jsonl"),
        ((ner_bundle, re_bundle, posts, out, "--format", "ntriples"), "must end in .nt"),
        ((ner_bundle, re_bundle, posts, out, "--threshold", "2"), "--threshold must be a number from 0 to 1, not 2.0"),
        ((ner_bundle, re_bundle, posts, out, "--max-pairs", "0"), "--max-pairs must be at least 1, not 0"),
    ):
        assert main(["triples", *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        TripleJob(re_bundle, posts, out, relations=re_bundle).check()
