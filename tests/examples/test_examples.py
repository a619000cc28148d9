"""The examples run as their README says, or are what the program that reads them takes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote

import nbformat
import pytest
import ray
import yaml
from jsonschema import validate
from nbclient import NotebookClient
from places import ROOT

pytestmark = pytest.mark.heavy

EXAMPLES = ROOT / "examples"
POSTS = ["Jordan was great today", "", "Paris in the rain"]


@pytest.fixture
def on_path(monkeypatch):
    """`python` and `hvpnet` are those of the tests."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_the_readme_lists_every_example():
    named = (EXAMPLES / "README.md").read_text("utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.name != "README.md"}
    assert {name for name in files if f"({name})" in named} == files


def test_the_notebook_runs(ner_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("BUNDLE", str(ner_bundle))
    notebook = nbformat.read(EXAMPLES / "first_steps.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none are kept: they would be of another bundle
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = ["".join(out.get("text", "") for out in cell.outputs) for cell in cells]
    assert printed[0].startswith("ner on onnxruntime-cpu fp32")
    assert "'entities'" in cells[1].outputs[0]["data"]["text/plain"]
    answers = printed[3].splitlines()
    assert len(answers) == 3
    assert answers[1].startswith("row 1: TextError")
    assert answers[2].startswith("row 2: PictureError")


def test_the_client_asks_a_service(ner_bundle, served, tmp_path):
    posts = tmp_path / "posts.txt"
    posts.write_text("\n".join(POSTS), "utf-8")
    run = [sys.executable, EXAMPLES / "client.py", served(ner_bundle), posts]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["1", "3"]
    assert done.stderr.startswith("2: TextError: ")


def test_the_bulk_job_goes_on_where_it_was(ner_bundle, on_path, tmp_path):
    posts, answers = tmp_path / "posts", tmp_path / "answers"
    posts.mkdir()
    for name, texts in {"a": ["Jordan was great"], "b": POSTS}.items():
        (posts / f"{name}.jsonl").write_text("".join(f"{json.dumps({'text': text})}\n" for text in texts), "utf-8")

    def job():
        return subprocess.run(
            [EXAMPLES / "bulk.sh", ner_bundle, posts, answers], capture_output=True, text=True, check=False
        )

    assert job().returncode == 1  # one row was rejected
    assert {path.name: len(path.read_text("utf-8").splitlines()) for path in answers.glob("?.jsonl")} == {
        "a.jsonl": 1,
        "b.jsonl": 2,
    }
    again = job()
    assert (again.returncode, again.stdout) == (0, "")


def test_ray_takes_the_cluster_file():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text("utf-8"))
    validate(yaml.safe_load((EXAMPLES / "ray-cluster.yaml").read_text("utf-8")), schema)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path):
    hvpnet = Path(sys.executable).with_name("hvpnet")
    unit = tmp_path / "hvpnet.service"
    unit.write_text(
        (EXAMPLES / unit.name).read_text("utf-8").replace("/opt/hvpnet/bin/hvpnet", quote(str(hvpnet))), "utf-8"
    )
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
