"""INT8 in the graph itself: Q/DQ nodes by ONNX Runtime's static quantiser.

INT8 are the convolutions of the ResNet and the six linear layers of every BERT layer: all but 2 % of the products. The
pooling of the pyramid, projection and gates, attention, GELU, layer norms, softmax, mask and classifier are as in the
graphs that INT8 is made of, and so are prefixes and outputs. Ranges are those of typical tweets in text and pictures.

`int8`, for CPUs, is made of the FP32 graphs. Activations are uint8 with a zero point and weights int8 per output
channel, which is what processors with VNNI multiply and what ONNX Runtime has kernels for; residual sums of the ResNet
are INT8 too. Processors without VNNI add the products up in 16 bits, where they may overflow; so on such a processor
weights take seven bits of the eight, which makes graphs that are right on every processor.

`int8_fp16`, for TensorRT, is made of the FP16 graphs, so that attention still becomes one kernel. Activations are
symmetric, as TensorRT wants them; a CPU would run 20 of the 53 convolutions without INT8 kernels and take 2.5 times
as long. Nothing is rounded between a convolution and its residual sum, so that TensorRT may add it in the same kernel.

The text graph is static too: with dynamic quantisation, which takes ranges from the values at hand and is 8 % faster on
a CPU, a tweet's answer would depend on the others in its batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.visual_prefix import normalise
from hvpnet_export.errors import ExportError
from hvpnet_export.graphs import quiet
from hvpnet_export.model_facts import manifest_of
from hvpnet_export.parity_cases import ParityCase
from hvpnet_export.processor import adds_int8_in_16_bits
from hvpnet_export.smoothing import smooth
from hvpnet_runtime.backends.onnxruntime import CPU, require_provider
from hvpnet_runtime.bundle import Precision, graph_specs

METHOD = "MinMax"
"""How ranges are taken: the least and the greatest value of an activation over all calibration tweets."""

_RESNET: Mapping[Precision, tuple[str, ...]] = {"int8": ("Conv", "Relu", "Add", "MaxPool"), "int8_fp16": ("Conv",)}
_LINEAR = ("MatMul", "Gemm")  # a Gemm is the classifier of relations at most, which is left out as the last


@torch.no_grad()
def quantise(model: HVPNeT, source: Path, target: Path, cases: Sequence[ParityCase], precision: Precision) -> None:
    """Write INT8 graphs.

    Args:
        model: the eager model; it computes the prefixes that the text graph is calibrated with.
        source: folder of vision.onnx (unless text_only) and text.onnx in the precision that this one is made of.
        target: folder of the INT8 graphs; made if need be.
        cases: to calibrate with. The blank picture is not among their pictures, for the vision graph never reads it.
        precision: `int8` or `int8_fp16`.

    Raises:
        ExportError: no case has a picture for a model that reads them, or the quantiser fails or loses weights.
        MissingExtraError: ONNX Runtime is not installed.
    """
    target.mkdir(parents=True, exist_ok=True)
    if model.config.pictures:
        if not any(case.pixels is not None and len(case.pixels) for case in cases):
            raise ExportError("none of the calibration tweets has a picture, and the model reads them: add pictures")
        vision = onnx.load(source / "vision.onnx")
        feeds = ({"images": case.pixels.numpy()} for case in cases if case.pixels is not None and len(case.pixels))
        _quantise(vision, target / "vision.onnx", resnet_nodes(vision, precision), feeds, precision)
    text = onnx.load(source / "text.onnx")
    texts, layers = [text_feed(model, case, precision) for case in cases], linear_nodes(text)
    smooth(text, layers, texts)
    _quantise(text, target / "text.onnx", layers, texts, precision)


def resnet_nodes(model: Any, precision: Precision) -> list[str]:  # noqa: ANN401  onnx has no types
    """Names of the nodes of the ResNet, which is what comes before the last pooling of the pyramid, that are INT8."""
    nodes = list(model.graph.node)
    last = max(index for index, node in enumerate(nodes) if node.op_type == "AveragePool")
    return [node.name for node in nodes[:last] if node.op_type in _RESNET[precision]]


def linear_nodes(model: Any) -> list[str]:  # noqa: ANN401
    """Names of the linear layers of BERT: products with a weight, but for the last one, the classifier."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in _LINEAR and node.input[1] in weights][:-1]


def text_feed(model: HVPNeT, case: ParityCase, precision: Precision) -> dict[str, Any]:
    """Inputs of the text graph by name; the eager model computes their prefix."""
    feed = {name: tensor.numpy() for name, tensor in case.text.items()}
    if case.pixels is not None:
        prefixes = model.encode_pictures(normalise(case.pixels))  # [N, layers, 2, P * hidden]
        prefix = case.gather(prefixes, model.blank_prefix())  # [B, pictures, layers, 2, P * hidden]
        (made,) = graph_specs(manifest_of(model.config), precision)["vision"].outputs
        feed["prefix"] = prefix.numpy().astype(made.dtype)
    return feed


def _quantise(
    source: Any,  # noqa: ANN401
    target: Path,
    nodes: Sequence[str],
    feeds: Iterable[dict[str, Any]],
    precision: Precision,
) -> None:
    require_provider(CPU, "cpu")  # which imports it without telemetry
    from onnxruntime import quantization

    # A linear layer's output goes to an operator of floats anyway: rounding it would only cost accuracy.
    unrounded, inputs = list(_LINEAR), iter(feeds)
    settings: dict[str, Any] = {"OpTypesToExcludeOutputQuantization": unrounded}
    if precision == "int8_fp16":
        unrounded.append("Conv")
        settings |= {"ActivationSymmetric": True, "QuantizeBias": False}
    weighted = [node for node in source.graph.node if node.name in nodes and node.op_type in ("Conv", *_LINEAR)]
    before = _living(source, weighted)  # the quantiser empties the model
    try:
        with quiet():
            quantization.quantize_static(
                source,
                target,
                SimpleNamespace(get_next=lambda: next(inputs, None)),  # its CalibrationDataReader
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[*_RESNET[precision], *_LINEAR],
                nodes_to_quantize=list(nodes),
                per_channel=True,
                reduce_range=precision == "int8" and adds_int8_in_16_bits(),
                activation_type=quantization.QuantType.QUInt8 if precision == "int8" else quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod[METHOD],
                extra_options=settings,
            )
    except Exception as error:  # it asserts, and raises errors of many kinds
        reason = (str(error).splitlines() or ["it gives no reason"])[0]
        raise ExportError(f"ONNX Runtime could not quantise {target.name}: {reason}") from error
    after = _living(onnx.load(target), weighted, "_quantized")
    lost = [name for name, living in before.items() if (living & ~after[name]).any()]
    if lost:  # releases before 1.32 know no small scales of FP16
        raise ExportError(
            f"ONNX Runtime rounded all weights of a channel of {lost[0]} in {target.name} to zero: upgrade onnxruntime"
            " to 1.32 or newer"
        )


def _living(model: Any, nodes: Sequence[Any], suffix: str = "") -> dict[str, npt.NDArray[np.bool_]]:  # noqa: ANN401
    """Which output channels have a weight that is not zero, [out], by name of the weight."""
    tensors, found = {tensor.name: tensor for tensor in model.graph.initializer}, dict[str, npt.NDArray[np.bool_]]()
    for node in nodes:
        weight = numpy_helper.to_array(tensors[node.input[1] + suffix])  # [out, in, ..] of a Conv, else [in, out]
        channels = np.moveaxis(weight, 0 if node.op_type == "Conv" else 1, 0)  # [out, ..]
        found[node.input[1]] = np.any(channels.reshape(len(channels), -1), axis=1)
    return found
