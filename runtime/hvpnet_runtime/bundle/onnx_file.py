"""What can be told of an ONNX file without a library: whether it holds all of its weights itself.

Every runtime takes the weights of a tensor with `external_data` from another file: beside the graph, or below the
current folder where the graph comes from memory. No digest covers that file.

Source: the field numbers are those of onnx/onnx.proto; the wire format is that of Protocol Buffers.
"""

from pathlib import Path

from hvpnet_runtime.bundle.grounder_spec import remake
from hvpnet_runtime.errors import BundleError

_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Fields on the way to a tensor, by the message that has them."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
"""Fields of a tensor: where its values are, and whether they are elsewhere."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def require_own_weights(content: bytes, file: Path) -> None:
    """Refuse an ONNX file that takes weights from another file.

    Args:
        content: of the file.
        file: what messages call it.

    Raises:
        BundleError: it does, or is no ONNX file.
    """
    try:
        external = _takes_external_data(content)
    except (IndexError, ValueError) as error:
        raise BundleError(f"{file} is no ONNX file, or damaged: {remake(file)}") from error
    if external:
        raise BundleError(
            f"{file} takes weights from another file, which no digest covers: {remake(file)}; its graphs hold"
            " their weights"
        )


def _takes_external_data(content: bytes) -> bool:
    """Walk over all messages that lead to a tensor; what lies between them is skipped, not read."""
    left = [("model", 0, len(content))]
    while left:
        message, at, end = left.pop()
        while at < end:
            key, at = _varint(content, at)
            field, wire = key >> 3, key & 7
            if message == "tensor" and field == _EXTERNAL_DATA:
                return True
            if wire == _VARINT:
                value, at = _varint(content, at)
                if message == "tensor" and field == _DATA_LOCATION and value:
                    return True
            elif wire == _BYTES:
                size, start = _varint(content, at)
                at = start + size
                if field in _MESSAGES[message]:
                    left.append((_MESSAGES[message][field], start, at))
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
            else:
                raise ValueError(f"wire type {wire}")
        if at != end:
            raise ValueError("a field ends behind its message")
    return False


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; seven bits a byte, the lowest first."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
