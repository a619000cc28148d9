"""What is timed: backends at precisions. It imports nothing that a worker would time."""

from collections.abc import Sequence
from dataclasses import dataclass

EAGER, COMPILED = "eager", "torch.compile"
COMPUTED = {"openvino": ("bf16",)}
"""Precisions that a backend computes the FP32 graphs in; a bundle has no graphs of them."""


@dataclass(frozen=True)
class Candidate:
    """A backend at a precision: `eager` or `torch.compile`, or one of `hvpnet_runtime.backends.BACKENDS`."""

    backend: str
    precision: str

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.backend} {self.precision}"

    @property
    def is_pytorch(self) -> bool:
        """Whether it runs the checkpoint, not the bundle."""
        return self.backend in (EAGER, COMPILED)


BASELINE = Candidate(EAGER, "fp32")
"""What every ratio is to."""


def find_candidates(precisions: Sequence[str], reduced: str, backends: Sequence[str]) -> list[Candidate]:
    """All that may run here, the baseline first; what does not says so when it is loaded.

    Every backend is tried at all precisions of the bundle, PyTorch also at its reduced precision on this machine.
    """
    pairs = [(name, each) for name in backends for each in (*precisions, *COMPUTED.get(name, ()))]
    return [BASELINE, Candidate(EAGER, reduced), Candidate(COMPILED, "fp32"), *(Candidate(*pair) for pair in pairs)]
