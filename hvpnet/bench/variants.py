"""Every way of running a model that can be timed here: PyTorch's and those of the bundle."""

from collections.abc import Sequence
from dataclasses import dataclass

from hvpnet_runtime.backends import BACKENDS
from hvpnet_runtime.bundle import Bundle

EAGER, COMPILED = "eager", "torch.compile"

COMPUTED = {"openvino": ("bf16",)}
"""Precisions that a backend computes the FP32 graphs in; a bundle has no graphs of them."""


@dataclass(frozen=True)
class Variant:
    """An engine at a precision.

    Attributes:
        engine: `eager`, `torch.compile`, or a name of `hvpnet_runtime.backends.BACKENDS`.
        precision: `fp32`, `fp16`, `bf16`, or one that the bundle has.
    """

    engine: str
    precision: str

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.engine} {self.precision}"

    @property
    def is_pytorch(self) -> bool:
        """Whether it runs the checkpoint, not the bundle."""
        return self.engine in (EAGER, COMPILED)


BASELINE = Variant(EAGER, "fp32")
"""What every ratio is to."""


def find_variants(bundle: Bundle, reduced: str, backends: Sequence[str] = tuple(BACKENDS)) -> list[Variant]:
    """All that may run here, the baseline first; what does not says so when it is loaded.

    Args:
        bundle: its precisions are tried with every backend.
        reduced: PyTorch's reduced precision on this machine.
        backends: names of `BACKENDS`.
    """
    pytorch = [BASELINE, Variant(EAGER, reduced), Variant(COMPILED, "fp32")]
    return pytorch + [
        Variant(backend, precision)
        for backend in backends
        for precision in (*bundle.precisions, *COMPUTED.get(backend, ()))
    ]
