"""ONNX graphs, those of the model among them, written the way ONNX Runtime and TensorRT like them.

Batch norm is folded into the convolutions *before* tracing: the exporter would decompose it into seven operators each,
in Python, which takes longer than all the rest. Attention is plain MatMul, Add, Softmax, MatMul, its queries scaled by
their projection's weights: the pattern TensorRT fuses to one kernel from version 8 to 11, while the ONNX `Attention`
operator (opset 23) is read by the newest parsers only and is no faster in ONNX Runtime. Opset 20 is the first with
`Gelu` as one operator.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.text_encoder import scaled_attention
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_export.errors import ExportError
from hvpnet_export.model_facts import manifest_of
from hvpnet_runtime.bundle import Axis, GraphName, GraphSpec, Precision, graph_specs

if TYPE_CHECKING:
    from transformers.models.bert.modeling_bert import BertLayer, BertSelfAttention

OPSET = 20
_PROTOBUF_LIMIT = 2**31 - 1

NORMALISED = "normalised"
"""Name of the tensor that the first nodes of the vision graph make of its pixels, float32 [N, 3, 224, 224]."""


class VisionGraph(nn.Module):
    """images uint8 [N, 224, 224, 3] -> prefix [N, layers, 2, prefix_length * hidden] in the model's precision."""

    def __init__(self, model: HVPNeT) -> None:
        super().__init__()
        self.model = model
        self.image_model = fold_batch_norm(copy.deepcopy(model.image_model))
        self.dtype = next(model.image_model.parameters()).dtype

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See the class; the normalised pictures come second, so that the exporter names them."""
        normalised = normalise(images)
        return self.model.prefix(self.image_model(normalised.to(self.dtype))), normalised


def text_graph(model: HVPNeT) -> HVPNeT:
    """The model whose `forward` is the text graph: `scaled_attention`, and 1 / sqrt(size) in the queries' projections.

    All other weights are the model's own tensors, which stays as it is.
    """
    graph = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})  # modules anew, weights shared
    graph.attention = scaled_attention
    for layer in cast("list[BertLayer]", graph.bert.encoder.layer):
        attention = cast("BertSelfAttention", layer.attention.self)
        scale, query = attention.attention_head_size**-0.5, attention.query
        for name, weight in list(query.named_parameters()):  # in FP32 also where they are FP16
            setattr(query, name, nn.Parameter((weight.detach().float() * scale).to(weight.dtype)))
    return graph


Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(module: Module) -> Module:
    """Fold every batch norm into the convolution or linear layer registered right before it, in place."""
    previous_name, previous = "", nn.Module()
    for name, child in list(module.named_children()):
        fused: nn.Module | None = None
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            fused = fuse_conv_bn_eval(previous, child)
        elif isinstance(child, nn.BatchNorm1d) and isinstance(previous, nn.Linear):
            fused = fuse_linear_bn_eval(previous, child)
        if fused is not None:
            setattr(module, previous_name, fused)
            setattr(module, name, nn.Identity())
        else:
            fold_batch_norm(child)
        previous_name, previous = name, child
    return module


def export_vision(model: HVPNeT, path: Path, precision: Precision = "fp32") -> None:
    """Write vision.onnx, dynamic in the number of pictures.

    Args:
        model: as `to_precision` gives it.
        path: of the file.
        precision: of the model.

    Raises:
        ExportError: the exporter failed, or the graph is too large for one file.
    """
    write_graph(VisionGraph(model), _spec(model, "vision", precision), path, NORMALISED)


def export_text(model: HVPNeT, path: Path, precision: Precision = "fp32") -> None:
    """Write text.onnx, dynamic in batch and length; arguments and errors as in `export_vision`."""
    longest = model.config.bert.max_position_embeddings
    write_graph(text_graph(model), _spec(model, "text", precision), path, longest=longest)


def _spec(model: HVPNeT, graph: GraphName, precision: Precision) -> GraphSpec:
    return graph_specs(manifest_of(model.config), precision)[graph]


def write_graph(module: nn.Module, spec: GraphSpec, path: Path, *inner: str, longest: int | None = None) -> None:
    """Export a module as a graph of one file.

    Args:
        module: its arguments are the graph's inputs by name; its outputs are the graph's own, and then tensors that are
            to be named `inner`.
        spec: the graph's interface; named axes are dynamic.
        path: of the file.
        inner: names of tensors inside.
        longest: pieces of a text at most.

    Raises:
        ExportError: the exporter failed, or the graph is too large for one file.
    """
    sizes: dict[Axis, int] = {"pictures": 2, "batch": 2, "queries": 3, "length": 8}  # any: the graph takes others too
    dims = {axis: Dim(axis, max=longest if axis == "length" else None) for axis in sizes}
    inputs = {each.name: torch.ones(each.shape(sizes), dtype=getattr(torch, each.dtype.name)) for each in spec.inputs}
    axes = {
        each.name: {place: dims[axis] for place, axis in enumerate(each.axes) if not isinstance(axis, int)}
        for each in spec.inputs
    }
    with torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                module.eval(),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=[*(each.name for each in spec.outputs), *inner],
                dynamic_shapes=axes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch.onnx could not export {path.name}: {str(error).splitlines()[0]}") from error
    if program is None:
        raise ExportError(f"torch.onnx exported nothing for {path.name}")
    del program.model.graph.outputs[len(spec.outputs) :]
    size = sum(tensor.const_value.nbytes for tensor in program.model.graph.initializers.values() if tensor.const_value)
    if size > _PROTOBUF_LIMIT:
        raise ExportError(f"{path.name} would hold {size / 2**30:.1f} GiB of weights; an ONNX file holds at most 2")
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, with paths of this machine
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path, external_data=False)
    onnx.checker.check_model(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what exporter and quantiser say of their own internals, some of it to the root logger."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
