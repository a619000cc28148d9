"""The one command for a GPU, on the fake device: every step is walked, and what does not run here says why."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sums
from places import ROOT

pytestmark = pytest.mark.heavy


def test_a_dry_run_walks_every_step(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks/gpu/run.sh"), str(tmp_path / "out"), "--dry-run"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHON": sys.executable})
    assert run.returncode == 0, run.stdout + run.stderr
    out = tmp_path / "out"
    steps = json.loads((out / "steps.json").read_text("utf-8"))["steps"]
    failed = {name: step["failed"] for name, step in steps.items() if step["failed"]}
    for name, reason in failed.items():
        assert name.startswith("table of "), (name, reason)  # of what needs a GPU
        assert any(words in reason for words in ("PyTorch sees no CUDA GPU", "CUDAExecutionProvider", "on a GPU only",
                                                 "no usable CUDA GPU")), (name, reason)  # fmt: skip
    measured = {json.loads(path.read_text("utf-8"))["candidate"] for path in out.glob("table-*.json")}
    engines = {"tensorrt fp16", "tensorrt int8_fp16", "tensorrt fp16 without CUDA graphs"}
    assert measured >= {"eager fp32", "onnxruntime-cuda fp16", *engines}
    assert {f"table of {name}" for name in measured}.isdisjoint(failed)
    for number in (0, 1):
        fire = json.loads((out / f"fire-{number}.json").read_text("utf-8"))
        assert (fire["wrong"], fire["requests"], fire["bytes_not_freed"]) == (0, 8, 0)
    found = json.loads((out / "correctness.json").read_text("utf-8"))["ner"]
    assert {name for name, row in found.items() if row.get("passed")} == measured
    assert "| 1 x 80 | tensorrt fp16 |" in (out / "report.md").read_text("utf-8")


def test_the_oracle_of_the_kernels() -> None:
    """Two pictures of one text, summed by hand."""
    images = np.zeros((1, 2, 224, 224, 3), np.uint8)
    images.reshape(1, 2, -1)[0, 1, 977] = 5  # a pixel that is sampled
    found = sums.emissions(np.array([[7, 9]]), np.array([[1, 0]]), images, 1000, 2)
    places = [0, 104729 % 1000]
    first = [7 * (label + 1) + place * 31 % 509 + 2 * ((5 + place * 31) % 509) for label, place in enumerate(places)]
    np.testing.assert_array_equal(found, [[first, [0, 0]]])
