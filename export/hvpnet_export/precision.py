"""FP16 in the graph itself: strongly typed, so TensorRT 10, TensorRT 11, TensorRT for RTX and ONNX Runtime agree on it.

The module is halved before tracing, where it is known which tensor is which, instead of rewriting the finished graph:
matrix products and convolutions have FP16 weights and inputs; sums of the residual stream, layer norms, softmaxes, the
mask and the classifier stay FP32. That takes six casts a layer, each next to an operator it fuses with. A converter of
finished graphs (onnxruntime.transformers.float16) leaves more of them and narrows the residual sums, which overflow
first.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the field's name for it

from hvpnet.modeling.model import HVPNeT
from hvpnet_export.errors import ExportError
from hvpnet_runtime.bundle import Precision


class NarrowLinear(nn.Linear):
    """A linear layer with FP16 weights: its input is narrowed, its output is FP16."""

    def forward(self, x: Tensor) -> Tensor:
        """[.., in_features] of any type -> FP16 [.., out_features]."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class NarrowEmbedding(nn.Embedding):
    """A table kept in FP16, looked up as FP32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name in nn.Embedding
        """Int64 [..] -> FP32 [.., embedding_dim]."""
        return super().forward(input).float()


def to_precision(model: HVPNeT, precision: Precision) -> HVPNeT:
    """For `fp16`, a copy that computes as the module's docstring says; else the model: INT8 is made of FP32 graphs.

    The copy's `encode_pictures` takes FP16 images and gives FP16 prefixes; its `forward` takes those and gives FP32.

    Raises:
        ExportError: a weight does not fit FP16.
    """
    if precision != "fp16":
        return model
    narrow = copy.deepcopy(model)
    for name in ("image_model", "encoder_conv", "gates"):
        if hasattr(narrow, name):
            getattr(narrow, name).half()
    for layer in narrow.bert.encoder.layer.modules():
        if isinstance(layer, nn.Linear):
            layer.__class__ = NarrowLinear
            layer.half()
    words = narrow.bert.embeddings.word_embeddings
    words.__class__ = NarrowEmbedding
    words.half()
    for name, tensor in narrow.state_dict().items():
        if tensor.dtype == torch.float16 and not tensor.isfinite().all():
            raise ExportError(f"{name} holds values beyond {torch.finfo(torch.float16).max:.0f}: FP16 cannot hold them")
    return narrow
