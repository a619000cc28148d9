"""Checkpoint to verified bundle, at full size: `pytest benchmarks/test_export.py`."""

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from hvpnet import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import export_bundle


def test_export_and_verify(benchmark: BenchmarkFixture, files, tmp_path: Path) -> None:
    def export() -> None:
        export_bundle(load_checkpoint(files.checkpoint), load_tokenizer(files.checkpoint, "ner"), tmp_path / "bundle")

    benchmark.pedantic(export, rounds=1)
