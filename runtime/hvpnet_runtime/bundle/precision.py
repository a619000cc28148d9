"""Precisions of graphs."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "fp16", "int8", "int8_fp16"]
"""The name of a folder under onnx/: `int8` is for CPUs, `int8_fp16` for TensorRT."""

QUANTISED: Mapping[str, Precision] = {"int8": "fp32", "int8_fp16": "fp16"}
"""Precisions whose products are INT8, with ranges taken from tweets, and those of the graphs that they are made of."""


def export_command(precisions: Sequence[str]) -> str:
    """What writes graphs of these precisions, but for its other arguments."""
    named = ",".join(precisions)
    if any(each in QUANTISED for each in precisions):
        return f"hvpnet export --precision {named} --calibration DATA"
    return f"hvpnet export --precision {named}"
