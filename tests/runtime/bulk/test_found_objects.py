"""Bulk runs find objects, too, and answers in both formats say which."""

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_grounder import COLOURS, add_grounder

from hvpnet_runtime.bulk import Job, Local, annotate

pytestmark = pytest.mark.heavy

BOX = (4, 8, 24, 40)


@pytest.fixture
def job(ner_bundle: Path, tmp_path: Path) -> Job:
    image = Image.new("RGB", (64, 64), "white")
    image.paste(COLOURS["red"], BOX)
    image.save(tmp_path / "a.png")
    file = io.StringIO()
    for row in ({"id": 1, "image": "a.png"}, {"id": 2, "image": "a.png", "objects": []}, {"id": 3}):
        file.write(f"{json.dumps(row | {'text': 'Jordan was great in Madison'})}\n")
    (tmp_path / "tweets.jsonl").write_text(file.getvalue(), "utf-8")
    bundle = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")))
    return Job(bundle, tmp_path / "tweets.jsonl", tmp_path / "out.jsonl", "onnxruntime-cpu", part_rows=2)


def test_json_lines(job: Job) -> None:
    assert annotate(job, Local()).annotated == 3
    answers = [json.loads(line) for line in job.output.read_text("utf-8").splitlines()]
    assert [[each["query"] for each in answer["objects"]] for answer in answers] == [["red"], [], []]


@pytest.mark.parametrize("objects", [None, "given"])
def test_parquet(job: Job, objects: str | None) -> None:
    out = job.output.with_suffix(".parquet")
    annotate(Job(job.bundle, job.input, out, "onnxruntime-cpu", objects=objects), Local())  # type: ignore[arg-type]
    table = pq.read_table(out)
    assert ("objects" in table.column_names) == (objects is None)
    if objects is None:
        ((first,), *others) = table.column("objects").to_pylist()
        assert first == {"box": list(BOX), "query": "red", "score": pytest.approx(640 / 4096)}
        assert others == [[], []]
