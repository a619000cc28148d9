"""What is timed: the variants of a model, and the stages of an answer; imports nothing that a worker would time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

EAGER, COMPILED = "eager", "torch.compile"
COMPUTED = {"openvino": ("bf16",)}
"""Precisions that a backend computes the FP32 graphs in; a bundle has no graphs of them."""

STAGES = ("prepare", "normalise", "vision", "text", "decode")
"""Tokenise, decode and resize pictures; normalise them (PyTorch) or look up what was seen before; the two
networks; Viterbi and entities."""


@dataclass(frozen=True)
class Variant:
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


BASELINE = Variant(EAGER, "fp32")
"""What every ratio is to."""


def find_variants(precisions: Sequence[str], reduced: str, backends: Sequence[str]) -> list[Variant]:
    """All that may run here, the baseline first; what does not says so when it is loaded.

    Every backend is tried at all precisions of the bundle, PyTorch also at its reduced precision on this machine.
    """
    pairs = [(name, each) for name in backends for each in (*precisions, *COMPUTED.get(name, ()))]
    return [BASELINE, Variant(EAGER, reduced), Variant(COMPILED, "fp32"), *(Variant(*pair) for pair in pairs)]


class Stopwatch:
    """Splits the time since it was made into `stages`, seconds by name, without a gap between them."""

    def __init__(self) -> None:
        self.stages, self._last = dict.fromkeys(STAGES, 0.0), time.perf_counter()

    def lap(self, stage: str) -> None:
        """Count what has passed since the last lap to this stage."""
        now = time.perf_counter()
        self.stages[stage] += now - self._last
        self._last = now
