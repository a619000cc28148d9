"""`import hvpnet_runtime` and load of a bundle, against importing PyTorch and loading the checkpoint.

Each start is a process of its own; files are in the page cache. A bundle with more precisions has more to check:
`--folder` takes one of a single precision, for instance of `benchmarks/full_size.py runs/int8 --precision int8`.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pairing import paired
from pytest_benchmark.fixture import BenchmarkFixture

from hvpnet import load_checkpoint

RUNTIME = "from hvpnet_runtime import Pipeline; Pipeline.load({bundle!r}, 'onnxruntime-cpu')"
EAGER = {
    "model": "from hvpnet import load_checkpoint; load_checkpoint({checkpoint!r})",
    # Not a model yet: only PyTorch and the tensors.
    "tensors": "import torch; torch.load({checkpoint!r}, weights_only=True)",
}


@pytest.fixture(scope="module")
def checkpoint(files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the published code saves it."""
    path = tmp_path_factory.mktemp("published") / "best_model.pth"
    torch.save(load_checkpoint(files.checkpoint).state_dict(), path)
    return path


def start(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("eager", EAGER)
def test_load(benchmark: BenchmarkFixture, files, checkpoint: Path, eager: str) -> None:
    names = {"bundle": str(files.bundle), "checkpoint": str(checkpoint)}
    ours, theirs = RUNTIME.format(**names), EAGER[eager].format(**names)
    paired(benchmark, lambda: start(ours), lambda: start(theirs), rounds=5)
