"""The two ONNX graphs, written the way ONNX Runtime and TensorRT like them.

Batch norm is folded into the convolutions *before* tracing: the exporter would decompose it into seven operators each,
in Python, which takes longer than all the rest. Attention is plain MatMul, Add, Softmax, MatMul: the pattern TensorRT
fuses to one kernel from version 8 to 11, while the ONNX `Attention` operator (opset 23) is read by the newest parsers
only and is no faster in ONNX Runtime. Opset 20 is the first with `Gelu` as one operator.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.text_encoder import encode_text
from hvpnet_export.errors import ExportError

OPSET = 20
_PROTOBUF_LIMIT = 2**31 - 1


class VisionGraph(nn.Module):
    """images FP32 [N, 3, 224, 224] -> prefix [N, layers, 2, prefix_length * hidden] in the model's precision."""

    def __init__(self, model: HVPNeT) -> None:
        super().__init__()
        self.model = model
        self.image_model = fold_batch_norm(copy.deepcopy(model.image_model))
        self.dtype = next(model.image_model.parameters()).dtype

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.model.prefix(self.image_model(images.to(self.dtype)))


class TextGraph(nn.Module):
    """Token ids, mask and prefixes, in the model's precision, to FP32 emissions or logits; see `HVPNeT.forward`."""

    def __init__(self, model: HVPNeT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        prefix: Tensor | None = None,
        head_index: Tensor | None = None,
        tail_index: Tensor | None = None,
    ) -> Tensor:
        """See the class."""
        hidden = encode_text(self.model.bert, input_ids, attention_mask, prefix, plain_attention)
        return self.model.classify(hidden, head_index, tail_index)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, _dropout: float) -> Tensor:
    """[B, heads, T, size], [B, heads, K, size] twice, additive mask [B, 1, 1, K] -> [B, heads, T, size]."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3) + mask  # [B, heads, T, K], FP32 as the mask is
    return torch.softmax(scores, dim=-1).to(value.dtype) @ value


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution registered right before it, in place."""
    previous_name, previous = "", nn.Module()
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(previous, nn.Conv2d):
            setattr(module, previous_name, fuse_conv_bn_eval(previous, child))
            setattr(module, name, nn.Identity())
        else:
            fold_batch_norm(child)
        previous_name, previous = name, child
    return module


def export_vision(model: HVPNeT, path: Path) -> None:
    """Write vision.onnx, dynamic in the number of pictures.

    Raises:
        ExportError: the exporter failed, or the graph is too large for one file.
    """
    images = torch.zeros(2, 3, 224, 224)  # any picture: only its shape is read
    _export(VisionGraph(model), {"images": images}, {"images": {0: Dim("pictures")}}, "prefix", path)


def export_text(model: HVPNeT, path: Path) -> None:
    """Write text.onnx, dynamic in batch and length.

    Raises:
        ExportError: the exporter failed, or the graph is too large for one file.
    """
    config = model.config
    batch, length = Dim("batch"), Dim("length", max=config.bert.max_position_embeddings)
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    axes = {name: {0: batch, 1: length} for name in inputs}
    if config.pictures:
        size = config.prefix_length * config.bert.hidden_size
        dtype = next(model.image_model.parameters()).dtype
        inputs["prefix"] = torch.zeros(2, config.pictures, config.bert.num_hidden_layers, 2, size, dtype=dtype)
        axes["prefix"] = {0: batch}
    if config.task == "re" and config.head == "markers":
        for name in ("head_index", "tail_index"):
            inputs[name], axes[name] = torch.ones(2, dtype=torch.int64), {0: batch}
    _export(TextGraph(model), inputs, axes, "emissions" if config.task == "ner" else "logits", path)


def _export(
    module: nn.Module, inputs: dict[str, Tensor], axes: dict[str, dict[int, Dim]], output: str, path: Path
) -> None:
    module = module.eval()
    with torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                module,
                kwargs=inputs,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=axes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(f"torch.onnx could not export {path.name}: {str(error).splitlines()[0]}") from error
    if program is None:
        raise ExportError(f"torch.onnx exported nothing for {path.name}")
    size = sum(tensor.const_value.nbytes for tensor in program.model.graph.initializers.values() if tensor.const_value)
    if size > _PROTOBUF_LIMIT:
        raise ExportError(f"{path.name} would hold {size / 2**30:.1f} GiB of weights; an ONNX file holds at most 2")
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, with paths of this machine
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(path, external_data=False)
    onnx.checker.check_model(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
