"""ONNX graphs to engines of TensorRT for RTX, at full size and without a GPU: `pytest benchmarks/test_build.py`."""

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from hvpnet import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import export_bundle
from hvpnet_runtime import Bundle
from hvpnet_runtime.backends.tensorrt.build import BuildOptions, build_engines
from hvpnet_runtime.backends.tensorrt.record import BuildRecord


def test_both_engines_in_fp16(benchmark: BenchmarkFixture, files, tmp_path: Path) -> None:
    """`extra_info` has the seconds and bytes of each."""
    model, tokenizer = load_checkpoint(files.checkpoint), load_tokenizer(files.checkpoint, "ner")
    export_bundle(model, tokenizer, tmp_path / "bundle", precisions=("fp16",))
    bundle = Bundle.load(tmp_path / "bundle")
    folder = benchmark.pedantic(build_engines, (bundle, BuildOptions("tensorrt-rtx")), rounds=1)
    record = BuildRecord.read(folder)
    benchmark.extra_info |= {
        "version": record.version,
        "seconds": dict(record.seconds),
        "bytes": {name: facts.bytes for name, facts in record.files.items()},
    }
    print(benchmark.extra_info)
