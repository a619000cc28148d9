"""Parse a bundle's ONNX graph into a TensorRT network, and check that it is what the runtime will feed and read."""

from collections import Counter
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.bundle import GraphSpec
from hvpnet_runtime.errors import BuildError

_FULL = "FLOAT"
_PRODUCTS = ("CONVOLUTION", "MATRIX_MULTIPLY")
_SENSITIVE = ("SOFTMAX", "NORMALIZATION")
_TYPES = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8"}


def parse(api: Library, builder: Any, path: Path) -> Any:  # noqa: ANN401  TensorRT has no types
    """Read an ONNX file into a strongly typed network.

    Returns:
        The `INetworkDefinition`.

    Raises:
        BuildError: the parser does not understand it; every node it stumbled over is named.
    """
    flag = 1 << int(api.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    parser = api.trt.OnnxParser(network, api.logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        nodes = "; ".join(f"node {error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors)
        raise BuildError(f"{api.engine} {api.version} cannot parse {path}: {nodes or api.last_error()}")
    return network


def check(network: Any, spec: GraphSpec, precision: str) -> dict[str, Any]:  # noqa: ANN401
    """Hold a network's inputs, outputs and layer types against the bundle's contract.

    Returns:
        Types by input and output, and by kind of layer how many have which type, for build.json.

    Raises:
        BuildError: an input or output has another name or type, a product is not in the precision asked for, or a
            softmax or layer norm is not in FP32.
    """
    narrow = "HALF" if precision == "fp16" else _FULL
    expected = tuple(
        {tensor.name: _TYPES[tensor.dtype.name] for tensor in tensors} for tensors in (spec.inputs, (spec.output,))
    )
    inputs = {tensor.name: tensor.dtype.name for tensor in map(network.get_input, range(network.num_inputs))}
    outputs = {tensor.name: tensor.dtype.name for tensor in map(network.get_output, range(network.num_outputs))}
    if (inputs, outputs) != expected:
        raise BuildError(
            f"{spec.name}.onnx has the inputs and outputs {inputs}, {outputs}; the runtime needs {expected}"
        )
    layers = Counter(
        (layer.type.name, layer.get_output(0).dtype.name)
        for layer in map(network.get_layer, range(network.num_layers))
        if layer.type.name in _PRODUCTS + _SENSITIVE
    )
    unstable = any(kind in _SENSITIVE and dtype != _FULL for kind, dtype in layers)
    others = sum(number for (kind, dtype), number in layers.items() if kind in _PRODUCTS and dtype != narrow)
    if unstable or others > (spec.name == "text"):  # the classifier is the one product that stays FP32
        raise BuildError(
            f"{spec.name}.onnx is not a {precision} graph of this version: {dict(layers)}; export it again"
        )
    counts: dict[str, dict[str, int]] = {}
    for (kind, dtype), number in sorted(layers.items()):
        counts.setdefault(kind, {})[dtype] = number
    return {"inputs": inputs, "outputs": outputs, "layers": counts}
