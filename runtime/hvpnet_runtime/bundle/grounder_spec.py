"""What a bundle says of its grounder: the model that finds the boxes of objects in a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from hvpnet_runtime.bundle.precision import QUANTISED, Precision

GrounderKind: TypeAlias = Literal["one-stage", "owl-vit"]
QueryKind: TypeAlias = Literal["fixed", "text"]

QUERY_TOKENIZER = "grounder_tokenizer.json"
FIXED_QUERIES = "grounder.npz"

ADD_AGAIN = "add the grounder again with hvpnet ground add"
"""What to do about a grounder that is of no use."""

_STEMS = ("grounder", "queries", "grounder_tokenizer")


@dataclass(frozen=True)
class GrounderSpec:
    """A grounder.

    Attributes:
        kind: which model; it decides how a picture becomes the square that the model reads.
        size: side of that square in pixels, S.
        query_size: values of a query's vector, D.
        max_length: pieces of a query, special ones included.
        queries: `fixed` words, whose vectors are in grounder.npz, or words of the `text`, which queries.onnx encodes.
        words: the fixed queries, in the order of grounder.npz; none for `text`.
        threshold: objects with a smaller score are dropped.
        precision: of its graphs, `fp32` or `fp16`; one at least.
        parity: by precision, the report of the comparison with eager PyTorch; `summary` is its text for people.
    """

    kind: GrounderKind
    size: int
    query_size: int
    max_length: int
    queries: QueryKind
    words: tuple[str, ...] = ()
    threshold: float = 0.0
    precision: tuple[Precision, ...] = ("fp32",)
    parity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def prefer(self, precision: str) -> Precision:
        """The precision to run beside a model of this one: the same, or else FP32, or else what there is.

        An INT8 model has a grounder of what it was made of, and one in bfloat16 an FP32 one: edges of boxes are
        decisions about pixels.
        """
        wanted = (QUANTISED.get(precision, precision), "fp32")
        return next((each for name in wanted for each in self.precision if each == name), self.precision[0])

    def required_files(self) -> tuple[str, ...]:
        """What a bundle with this grounder must hold, as paths inside it."""
        graphs = ("grounder.onnx",) if self.queries == "fixed" else ("grounder.onnx", "queries.onnx")
        own = FIXED_QUERIES if self.queries == "fixed" else QUERY_TOKENIZER
        return (own, *(f"onnx/{precision}/{name}" for precision in self.precision for name in graphs))


def remake(file: PurePath | str) -> str:
    """What makes a file of a bundle anew, by its name: the end of an error's message."""
    return ADD_AGAIN if PurePath(file).stem in _STEMS else "export the checkpoint again"


def check_grounder(spec: GrounderSpec) -> None:
    """Hold a grounder's values against what no type says.

    Raises:
        ValueError: a value contradicts another, or no grounder can have it.
    """
    for name, most in (("size", 2**13), ("query_size", 2**20), ("max_length", 2**20)):
        if not 0 < getattr(spec, name) < most:
            raise ValueError(f"grounder.{name} is {getattr(spec, name)}")
    if not 0 <= spec.threshold <= 1:
        raise ValueError(f"grounder.threshold is {spec.threshold}, scores are 0 to 1")
    if (spec.queries == "fixed") != bool(spec.words):
        raise ValueError(f"grounder.words has {len(spec.words)}, grounder.queries is {spec.queries}")
    for name in ("words", "precision"):
        values = getattr(spec, name)
        if len(set(values)) < len(values):
            raise ValueError(f"grounder.{name} has one value twice")
    if quantised := QUANTISED.keys() & spec.precision:
        raise ValueError(f"grounder.precision has {min(quantised)}: a grounder is fp32 or fp16")
    _check_parity(spec)
    for word in spec.words:
        word.encode()  # half of a surrogate pair cannot be written, and UnicodeEncodeError is a ValueError
        if not word.strip():
            raise ValueError("grounder.words has a blank one")


def _check_parity(spec: GrounderSpec) -> None:
    for precision, report in spec.parity.items():
        if precision not in spec.precision:
            raise ValueError(f"grounder.parity has {precision[:20]!r}, which grounder.precision lacks")
        if not isinstance(summary := report.get("summary"), str):
            raise ValueError(f"grounder.parity.{precision}.summary is no text")  # noqa: TRY004  of the document
        summary.encode()  # half of a surrogate pair cannot be written, and UnicodeEncodeError is a ValueError
