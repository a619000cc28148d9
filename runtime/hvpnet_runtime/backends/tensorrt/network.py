"""Parse a bundle's ONNX graph into a TensorRT network, and check that it is what the runtime will feed and read."""

from collections import Counter
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.bundle import QUANTISED, FoundTensor, GraphSpec
from hvpnet_runtime.bundle.grounder_spec import remake
from hvpnet_runtime.errors import BuildError

_FULL = "FLOAT"
_PRODUCTS = ("CONVOLUTION", "MATRIX_MULTIPLY")
_ROUNDING = ("QUANTIZE",)
_SENSITIVE = ("SOFTMAX", "NORMALIZATION")
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8"}
"""numpy's names of the types that graphs read and answer."""


def parse(api: Library, builder: Any, content: bytes, path: Path) -> Any:  # noqa: ANN401  TensorRT has no types
    """Read an ONNX file, by its content, into a strongly typed network.

    Returns:
        The `INetworkDefinition`.

    Raises:
        BuildError: the parser does not understand it; every node it stumbled over is named.
    """
    flag = 1 << int(api.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser = api.trt.OnnxParser(network, api.logger)
    if not parser.parse(content):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        nodes = "; ".join(f"node {error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors)
        raise BuildError(f"{api.engine} {api.version} cannot parse {path}: {nodes or api.last_error()}")
    return network


def check(network: Any, spec: GraphSpec, precision: str, file: Path) -> dict[str, Any]:  # noqa: ANN401
    """Hold a network's inputs, outputs and layer types against the bundle's contract.

    Returns:
        Types by input and output, and by kind of layer how many have which type, for build.json.

    Raises:
        BundleError: an input or output has another name, type, rank or size.
        BuildError: a product is not in the precision asked for, numbers are rounded to INT8 where that is not asked for
            or not where it is, or a softmax or layer norm is not in FP32. Which products of a grounder may be in FP32,
            its export decides.
    """
    narrow = _FULL if precision == "fp32" else "HALF"  # what products of INT8 answer, too
    sides = (
        [network.get_input(index) for index in range(network.num_inputs)],
        [network.get_output(index) for index in range(network.num_outputs)],
    )
    spec.check(file, *([_found(tensor) for tensor in tensors] for tensors in sides))
    inputs, outputs = ({tensor.name: tensor.dtype.name for tensor in tensors} for tensors in sides)
    layers = Counter(
        (layer.type.name, layer.get_output(0).dtype.name)
        for layer in map(network.get_layer, range(network.num_layers))
        if layer.type.name in _PRODUCTS + _ROUNDING + _SENSITIVE
    )
    unstable = any(kind in _SENSITIVE and dtype != _FULL for kind, dtype in layers)
    rounded = any(kind in _ROUNDING for kind, _ in layers)
    others = sum(number for (kind, dtype), number in layers.items() if kind in _PRODUCTS and dtype != narrow)
    allowed = {"vision": 0, "text": 1}.get(spec.name, others)  # the classifier is the one product that stays FP32
    if unstable or others > allowed or rounded != (precision in QUANTISED):
        raise BuildError(
            f"{spec.name}.onnx is not a {precision} graph of this version: {dict(layers)}; {remake(spec.name)}"
        )
    counts: dict[str, dict[str, int]] = {}
    for (kind, dtype), number in sorted(layers.items()):
        counts.setdefault(kind, {})[dtype] = number
    return {"inputs": inputs, "outputs": outputs, "layers": counts}


def replace_wide_products(api: Library, network: Any) -> None:  # noqa: ANN401
    """Write FP32 products with a weight as products of elements and their sums, in place, for GPUs that have no others.

    TensorRT for RTX has no FP32 matrix product on compute capability 7.5. Of an FP16 text graph it is the classifier
    alone, which then becomes part of the kernel of the last layer norm.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for layer in layers:
        product = layer.get_output(0)
        if layer.type.name != "MATRIX_MULTIPLY" or product.dtype.name != _FULL:
            continue
        layer.__class__ = api.trt.IMatrixMultiplyLayer
        rows, weight = layer.get_input(0), layer.get_input(1)  # [.., in], [.., in, out]
        columns = network.add_shuffle(rows)
        columns.reshape_dims = (0,) * len(rows.shape) + (1,)  # [.., in, 1]; 0 keeps a size
        table = network.add_shuffle(weight)
        if layer.op1 == api.trt.MatrixOperation.TRANSPOSE:
            table.first_transpose = (*range(len(weight.shape) - 2), len(weight.shape) - 1, len(weight.shape) - 2)
            sides = (weight.shape[-1], weight.shape[-2])
        else:
            sides = (weight.shape[-2], weight.shape[-1])
        table.reshape_dims = (1,) * (len(rows.shape) - 1) + sides  # [1, .., in, out]
        products = network.add_elementwise(
            columns.get_output(0), table.get_output(0), api.trt.ElementWiseOperation.PROD
        )  # [.., in, out]
        total = network.add_reduce(
            products.get_output(0), api.trt.ReduceOperation.SUM, 1 << (len(rows.shape) - 1), keep_dims=False
        )  # [.., out]
        for reader in layers:
            for index in range(reader.num_inputs):
                tensor = reader.get_input(index)
                if tensor is not None and tensor.name == product.name:
                    reader.set_input(index, total.get_output(0))


def _found(tensor: Any) -> FoundTensor:  # noqa: ANN401
    axes = tuple(None if size < 0 else size for size in tensor.shape)
    return FoundTensor(tensor.name, _DTYPES.get(tensor.dtype.name, tensor.dtype.name), axes)
