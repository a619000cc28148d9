"""`import hvpnet_runtime` and load of a bundle, against importing PyTorch and loading the checkpoint.

Each start is a process of its own; files are in the page cache. A bundle with more precisions has more to check.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pairing import paired
from pytest_benchmark.fixture import BenchmarkFixture

RUNTIME = "from hvpnet_runtime import Pipeline; Pipeline.load({bundle!r}, 'onnxruntime-cpu')"
EAGER = {
    "model": "from hvpnet import load_checkpoint; load_checkpoint({checkpoint!r})",
    # Not a model yet: only PyTorch and the tensors.
    "tensors": "import torch; torch.load({checkpoint!r}, weights_only=True)",
}


class Files(NamedTuple):
    """What the fixture `files` gives."""

    checkpoint: Path
    bundle: Path


def start(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("eager", EAGER)
def test_load(benchmark: BenchmarkFixture, files: Files, eager: str) -> None:
    names = {"bundle": str(files.bundle), "checkpoint": str(files.checkpoint)}
    ours, theirs = RUNTIME.format(**names), EAGER[eager].format(**names)
    paired(benchmark, lambda: start(ours), lambda: start(theirs), rounds=5)
