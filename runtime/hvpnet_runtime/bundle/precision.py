"""Precisions of graphs."""

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""The name of a folder under onnx/."""
