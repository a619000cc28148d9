"""The graphs of an OWL-ViT as `torch.onnx.export` makes them of it without any patch, run by ONNX Runtime."""

from functools import partial

import onnxruntime
import torch
from torch import nn
from torch.export import Dim

from hvpnet_export.graphs import OPSET, quiet


def session(module, path, inputs, axes, outputs):
    """Exports a module without any patch and opens it."""
    with torch.no_grad(), quiet():
        program = torch.onnx.export(
            module, kwargs=inputs, input_names=list(inputs), output_names=outputs, dynamic_shapes=axes,
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    program.save(path)
    return onnxruntime.InferenceSession(path)


def run(opened, names, *tensors):
    feeds = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    outputs = [torch.from_numpy(output) for output in opened.run(None, feeds)]
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


class Encoder(nn.Module):
    def __init__(self, grounder):
        super().__init__()
        self.grounder = grounder

    def forward(self, input_ids, attention_mask):
        return self.grounder.encode_queries(input_ids, attention_mask)


def export_ground(grounder, folder):
    """Runs grounder.onnx, dynamic in pictures and queries."""
    pictures, queries = Dim("pictures"), Dim("queries")
    inputs = {
        "images": torch.zeros(2, grounder.size, grounder.size, 3, dtype=torch.uint8),
        "queries": torch.ones(2, 3, grounder.query_size),
    }
    axes = {"images": {0: pictures}, "queries": {0: pictures, 1: queries}}
    return partial(run, session(grounder, folder / "grounder.onnx", inputs, axes, ["boxes", "scores"]), list(inputs))


def export_encode(grounder, folder):
    """Runs queries.onnx, dynamic in queries and pieces."""
    axes = {0: Dim("queries"), 1: Dim("length", max=grounder.max_length)}
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    opened = session(
        Encoder(grounder).eval(), folder / "queries.onnx", inputs, dict.fromkeys(inputs, axes), ["queries"]
    )
    return partial(run, opened, list(inputs))
