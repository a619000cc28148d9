"""What a bundle says of its grounder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

GrounderKind: TypeAlias = Literal["one-stage", "owl-vit"]
QueryKind: TypeAlias = Literal["fixed", "text"]


@dataclass(frozen=True)
class GrounderSpec:
    """A grounder as the manifest states it.

    Attributes:
        kind: decides how pictures reach the grounder.
        size: side S of the square input in pixels.
        query_size: values D of a query vector.
        max_length: pieces of a query, special ones included.
        queries: `fixed`, those of grounder.npz, or `text`, made of each text.
        words: the fixed queries, in the order of grounder.npz; empty for `text`.
        threshold: objects with a smaller score are dropped.
        precision: folders under onnx/ that hold grounder.onnx, and queries.onnx for `text`.
        parity: by precision, the report of the comparison with eager PyTorch.
    """

    kind: GrounderKind
    size: int
    query_size: int
    max_length: int
    queries: QueryKind
    words: tuple[str, ...] = ()
    threshold: float = 0.0
    precision: tuple[Literal["fp32", "fp16"], ...] = ("fp32",)
    parity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
