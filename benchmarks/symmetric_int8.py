"""F1 of a model whose text graph has symmetric INT8 activations, as TensorRT wants them, by way of calibration.

    python benchmarks/symmetric_int8.py CHECKPOINT TOKENIZER DATA --out FILE.json

The graphs are computed on the CPU, products of the rounded numbers in FP32: a GPU's own INT8 products are the same but
for the order of sums. The vision graph stays FP32, since the data's pictures may be stand-ins.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization

from hvpnet import Pipeline, load_checkpoint
from hvpnet.bench.machine import describe_machine
from hvpnet.data import load_split
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import CalibrationData, export_bundle
from hvpnet_export.graphs import quiet
from hvpnet_export.parity_cases import ParityCase, example_cases
from hvpnet_export.quantise import linear_nodes, text_feed
from hvpnet_export.smoothing import smooth
from hvpnet_runtime.bundle import file_digests

METHODS: dict[str, dict[str, Any]] = {"MinMax": {}, "Percentile": {"CalibPercentile": 99.99}, "Entropy": {}}
"""ONNX Runtime's ways to take ranges, and their options."""

TEXTS = 4
"""A batch; the histograms of two of the methods want every batch of one shape."""

Feed = dict[str, Any]


@torch.no_grad()
def feeds_of(model: Any, cases: Sequence[ParityCase]) -> list[Feed]:
    """Inputs of the text graph, padded to one length; a last batch that is not full is left out."""
    found = [feed for feed in (text_feed(model, case) for case in cases) if len(feed["input_ids"]) == TEXTS]
    longest = max(feed["input_ids"].shape[1] for feed in found)

    def padded(name: str, array: Any) -> Any:
        return array if name == "prefix" else np.pad(array, ((0, 0), (0, longest - array.shape[1])))

    return [{name: padded(name, array) for name, array in feed.items()} for feed in found]


def quantise(graph: Path, feeds: Sequence[Feed], method: str) -> None:
    """Put symmetric Q/DQ around the linear layers of BERT, in the file."""
    model, inputs = onnx.load(graph), iter(feeds)
    layers = linear_nodes(model)
    smooth(model, layers, feeds)
    with quiet():
        quantization.quantize_static(
            model,
            graph,
            SimpleNamespace(get_next=lambda: next(inputs, None)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=layers,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                **METHODS[method],
            },
        )


def with_digests(bundle: Path) -> None:
    """Write the digests of the bundle's files into its manifest."""
    path = bundle / "manifest.json"
    manifest, digests = json.loads(path.read_text("utf-8")), file_digests(bundle)
    manifest["files"] = {name: asdict(digests[name]) for name in manifest["files"]}
    path.write_text(json.dumps(manifest), "utf-8")


@contextmanager
def unfused() -> Iterator[None]:
    """Keep ONNX Runtime from the CPU's INT8 kernels, which add up in 16 bits where there is no VNNI."""
    options = onnxruntime.SessionOptions

    def make() -> Any:
        made = options()
        made.add_session_config_entry("session.disable_quant_qdq", "1")
        return made

    with patch.object(onnxruntime, "SessionOptions", make):
        yield


def main() -> None:
    """Export once, quantise and score by every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    model = load_checkpoint(options.checkpoint)
    tokenizer = load_tokenizer(options.tokenizer, model.config.task)
    chosen = CalibrationData.choose(load_split(options.data, "train"), model.config).calibration
    feeds = feeds_of(model, list(example_cases(model.config, tokenizer, chosen, batch_size=TEXTS)))
    test, scores = load_split(options.data, "test"), dict[str, Any]()
    with TemporaryDirectory() as folder, unfused():
        plain = Path(folder) / "fp32"
        export_bundle(model, tokenizer, plain)
        for method in (None, *METHODS):
            bundle = plain
            if method is not None:
                bundle = shutil.copytree(plain, Path(folder) / method)
                quantise(bundle / "onnx/fp32/text.onnx", feeds, method)
                with_digests(bundle)
            with Pipeline.load(bundle, "onnxruntime-cpu", precision="fp32") as pipeline:
                scores[method or "FP32"] = asdict(score_pipeline(pipeline, test))
            print(method or "FP32", scores[method or "FP32"]["f1"], flush=True)
    results = {
        "data": options.data.absolute().name,
        "tweets": len(test.examples),
        "calibration": {"tweets": TEXTS * len(feeds), "split": "train"},
        "machine": describe_machine(),
        "scores": scores,
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
