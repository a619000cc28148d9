"""What the pipeline asks of an engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Prefix(Protocol):
    """What one picture adds to every layer, kept where the backend wants it, for instance a numpy array."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, for the cache's limit."""
        ...


def stack_prefixes(rows: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
    """Prefixes that are numpy arrays, B rows of them -> [B, pictures, layers, 2, prefix_length * hidden]."""
    flat: Any = [prefix for row in rows for prefix in row]
    return np.stack(flat).reshape(len(rows), -1, *flat[0].shape)


@dataclass(frozen=True)
class TextInputs:
    """One padded batch of texts.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T], 1 = token.
        head_index: int64 [B], or None where the text graph has no such input.
        tail_index: likewise.
    """

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.int64]
    head_index: npt.NDArray[np.int64] | None = None
    tail_index: npt.NDArray[np.int64] | None = None

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """Those that the graph has, by the names of its inputs."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def rows(self, part: slice) -> "TextInputs":
        """Some of the texts."""
        return TextInputs(**{name: array[part] for name, array in self.arrays().items()})


def no_pictures(backend: str, *, closed: bool) -> str:
    """Why a backend without a vision graph encodes no pictures."""
    return f"the backend {backend} is closed" if closed else "this bundle reads no pictures (variant text_only)"


class Backend(Protocol):
    """Runs the two graphs; thread-safe."""

    @property
    def name(self) -> str:
        """Name in `BACKENDS`: what really loaded, not what was asked for."""
        ...

    @property
    def precision(self) -> str:
        """Of the graphs that run."""
        ...

    @property
    def max_length(self) -> int | None:
        """Most pieces of a text, where that is less than the bundle's own limit."""
        ...

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        """Normalised images [N, 3, side, side] -> N prefixes, kept where `encode_text` wants them."""
        ...

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """Texts [B, T] with B rows of prefixes -> emissions [B, T, labels] or logits [B, relations]."""
        ...

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards."""
        ...
