"""Which kernels an engine is made of, by what the library says while it builds: without a GPU nothing else tells."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LAYER = re.compile(r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+)")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_ATTENTION = "_mha"  # both libraries call an attention that became one kernel `_gemm_mha_v2`, and a suffix
_NO_KERNELS = ("shape_call", "NoOp", "Constant")
"""Kinds of layers for which the GPU has nothing to do."""


@dataclass(frozen=True)
class Kernels:
    """Kernels that one run under a profile launches.

    Attributes:
        total: all of them.
        attention: those that are a whole attention: products, mask and softmax.
    """

    total: int
    attention: int


def count_kernels(messages: Iterable[str]) -> tuple[Kernels, ...]:
    """Count the kernels of every profile, in the engine's order.

    Args:
        messages: what the library said during a build with detailed profiling. It lists the layers of one profile
            after the other; those of all but the first name their profile, which some inner layers leave out.

    Returns:
        One count a profile; empty where the library listed no layers.
    """
    counts: dict[int, Kernels] = {}
    profile = 0
    for line in (line for message in messages if "LayerType: " in message for line in message.splitlines()):
        layer = _LAYER.match(line)
        if layer is None or layer["kind"] in _NO_KERNELS:
            continue
        if named := _PROFILE.search(line):
            profile = int(named[1])
        before = counts.get(profile, Kernels(0, 0))
        counts[profile] = Kernels(before.total + 1, before.attention + (_ATTENTION in layer["name"]))
    return tuple(counts[profile] for profile in sorted(counts))
