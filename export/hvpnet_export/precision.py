"""FP16 in the graph itself: strongly typed, so TensorRT 10, TensorRT 11, TensorRT for RTX and ONNX Runtime agree on it.

The module is halved before tracing, where it is known which tensor is which, instead of rewriting the finished graph:
matrix products and convolutions have FP16 weights and inputs; sums of the residual stream, layer norms, softmaxes, the
mask and the classifier stay FP32. That takes six casts a layer, each next to an operator it fuses with. A converter of
finished graphs (onnxruntime.transformers.float16) leaves more of them and narrows the residual sums, which overflow
first.
"""

import copy
from collections.abc import Collection

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


class NarrowConv2d(nn.Conv2d):
    """A convolution with FP16 weights: its input is narrowed, its output is FP16."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name in nn.Conv2d
        """[N, in_channels, ..] of any type -> FP16 [N, out_channels, ..]."""
        return super().forward(input.to(self.weight.dtype))


class NarrowEmbedding(nn.Embedding):
    """A table kept in FP16, looked up as FP32."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name in nn.Embedding
        """Int64 [..] -> FP32 [.., embedding_dim]."""
        return super().forward(input).float()


_NARROW: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: NarrowLinear,
    nn.Conv2d: NarrowConv2d,
    nn.Embedding: NarrowEmbedding,
}


def to_precision(model: HVPNeT, precision: Precision) -> HVPNeT:
    """For `fp16`, a copy that computes as the module's docstring says; else the model itself.

    The copy's `encode_pictures` takes FP16 images and gives FP16 prefixes; its `forward` takes those and gives FP32.
    INT8 needs no copy, as it is made of finished graphs.

    Raises:
        ExportError: a weight does not fit FP16.
    """
    if precision != "fp16":
        return model
    narrow = copy.deepcopy(model)
    for name in ("image_model", "encoder_conv", "gates"):
        if hasattr(narrow, name):
            getattr(narrow, name).half()
    narrow_layers(narrow.bert.encoder.layer)
    narrow_layers(narrow.bert.embeddings, names=("word_embeddings",))
    check_fits(narrow)
    return narrow


def narrow_layers(module: nn.Module, names: Collection[str] | None = None) -> None:
    """Give linear layers, convolutions and embeddings FP16 weights, in place; all else stays FP32 by type promotion.

    Args:
        module: its batch norms are folded.
        names: of the layers, by default all.
    """
    for name, layer in module.named_modules():
        kind = next((narrow for wide, narrow in _NARROW.items() if isinstance(layer, wide)), None)
        if kind is not None and (names is None or name in names):
            layer.__class__ = kind
            layer.half()


def check_fits(module: nn.Module) -> None:
    """Hold narrowed weights against what FP16 can say.

    Raises:
        ExportError: one became infinite; it is named.
    """
    for name, tensor in module.state_dict().items():
        if tensor.dtype == torch.float16 and not tensor.isfinite().all():
            raise ExportError(f"{name} holds values beyond {torch.finfo(torch.float16).max:.0f}: FP16 cannot hold them")
