"""What the pipeline asks of a backend, and what backends share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.bundle import Axis, Bundle, GraphName, Precision
from hvpnet_runtime.errors import BackendError, InputError
from hvpnet_runtime.processes import Origin

LENGTHS = (16, 24, 32, 48, 64, 96, 128)
"""Pieces that texts are padded to where a backend wants few different shapes; most tweets have 10 to 60."""

MAX_PICTURES = 16
"""Pictures in one run of the vision graph, which bounds its activations."""

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""RGB pictures [N, crop, crop, 3], or one [crop, crop, 3]."""

Array: TypeAlias = npt.NDArray[Any]


def power_of_two(count: int) -> int:
    """The smallest power of two that is no less than a count, which is at least 1."""
    return 1 << (count - 1).bit_length()


class Prefix(Protocol):
    """What one picture adds to every layer, kept where the backend wants it, for instance a numpy array."""

    @property
    def nbytes(self) -> int:
        """Memory it takes, for the cache's limit."""
        ...


@dataclass(frozen=True)
class WarmUpShape:
    """A batch to be ready for.

    Attributes:
        texts: in the batch; 0 for none.
        length: pieces of each of them.
        pictures: in one run of the vision graph; 0 for none. They do not count where the bundle reads no pictures.

    Raises:
        InputError: one of them is negative, or texts have no piece.
    """

    texts: int
    length: int
    pictures: int

    def __post_init__(self) -> None:
        if min(self.texts, self.pictures) < 0 or self.length < bool(self.texts):
            raise InputError(f"there is no batch such as {self}")


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


class Backend(Protocol):
    """Runs the two graphs; thread-safe.

    Attributes:
        name: in `BACKENDS`: what really loaded, not what was asked for.
        precision: of the loaded graphs.
        max_length: most pieces of a text, where that is less than the bundle's own limit.
        run_tokens: what a run of the text graph costs beside its tokens, in tokens, where it may pay to run the short
            texts of a batch apart from the long ones; None where the whole batch is best run at once.
        lanes: batches that are best under way at the same time. On a GPU it is 2: the device computes one while the
            host decodes the other. On a CPU it is 1: two would take each other's cores.
    """

    name: str
    precision: str
    max_length: int | None
    run_tokens: int | None
    lanes: int

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """Pictures uint8 [N, crop, crop, 3] -> N prefixes, kept where `encode_text` wants them."""
        ...

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """A prefix that is known already, [layers, 2, prefix_length * hidden], put where `encode_text` wants it."""
        ...

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """Texts [B, T] with B rows of prefixes -> emissions [B, T, labels] or logits [B, relations]."""
        ...

    def warm_up(self, shapes: Sequence[WarmUpShape]) -> None:
        """Do ahead of the first request what would make it slow, for batches of these shapes.

        Args:
            shapes: none of them: the shapes that requests are padded to, or one small batch where there are none such.

        Raises:
            BackendError: it fails, or is closed.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; it cannot be used afterwards. In a forked process nothing is freed."""
        ...


class BundleBackend(Backend, Protocol):
    """A backend that was loaded from a bundle, and can load more of it."""

    def load_grounder(self) -> Grounder:
        """Load what finds objects, from the bundle that the backend was loaded from; the caller closes it.

        Raises:
            BundleError: the bundle has no grounder, or a graph of it is damaged or another's.
            BackendError: the backend cannot load it.
        """
        ...


def run_shape(backend: Backend, bundle: Bundle, shape: WarmUpShape) -> None:
    """Run one batch of a shape, whose pictures are black and whose texts mean nothing.

    Raises:
        BackendError: it fails.
    """
    sizes, side = bundle.sizes, bundle.manifest.preprocessing.crop
    if shape.pictures and sizes.pictures:
        backend.encode_pictures(np.zeros((shape.pictures, side, side, 3), np.uint8))  # [N, crop, crop, 3]
    if not shape.texts:
        return
    row: list[Prefix] = []
    if sizes.pictures:
        row = [backend.place_prefix(np.zeros(sizes.prefix_shape, np.float32))] * sizes.pictures
    pieces = np.ones((shape.texts, shape.length), np.int64)  # [B, T]
    marks = np.zeros(shape.texts, np.int64) if bundle.manifest.head == "markers" else None  # [B]
    backend.encode_text(TextInputs(pieces, pieces, marks, marks), [row] * shape.texts)


def no_pictures(backend: str, *, closed: bool) -> str:
    """Why a backend without a vision graph encodes no pictures."""
    return f"the backend {backend} is closed" if closed else "this bundle reads no pictures (variant text_only)"


class HostBackend(ABC):
    """A backend whose prefixes are numpy arrays; see `Backend`.

    Args:
        name: in `BACKENDS`.
        bundle: says what the graphs read.
        precision: of the graphs.
    """

    max_length: int | None = None
    lanes: int = 1
    run_tokens: int | None = 16  # BERT of 6 layers and 384 units on two cores: 2.6 ms a run, and 0.18 ms a token

    def __init__(self, name: str, bundle: Bundle, precision: Precision) -> None:
        self.name, self.precision, self._bundle = name, str(precision), bundle
        self._specs, self._closed = bundle.specs(precision), False
        self._sessions: dict[GraphName, Any] = {}  # what runs each graph, freed when closed
        self._origin = Origin()

    @abstractmethod
    def _run(self, graph: GraphName, feeds: Mapping[str, Array]) -> Array:
        """The output of a graph.

        Raises:
            BackendError: it failed.
        """

    @abstractmethod
    def load_grounder(self) -> Grounder:
        """See `BundleBackend`."""

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`."""
        self._origin.check()
        if self._closed or "vision" not in self._specs:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        prefixes = self._output("vision", {"images": pixels}, {"pictures": len(pixels)})  # [N, layers, 2, P * hidden]
        return [prefix.copy() for prefix in prefixes]  # a view would keep the whole batch alive in the cache

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        return prefix.astype(self._specs["vision"].output.dtype)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        self._origin.check()
        if self._closed:
            raise BackendError(f"the backend {self.name} is closed")
        feeds: dict[str, Array] = dict(text.arrays())
        if "vision" in self._specs:
            rows: Any = prefixes  # arrays, as they come from this backend
            feeds["prefix"] = np.stack([np.stack(row) for row in rows])  # [B, pictures, layers, 2, P * hidden]
        batch, length = text.input_ids.shape
        return self._output("text", feeds, {"batch": batch, "length": length})

    def _output(self, graph: GraphName, feeds: Mapping[str, Array], sizes: Mapping[Axis, int]) -> Array:
        """The output of a graph, whose shape a graph may promise and not keep."""
        output, expected = self._run(graph, feeds), self._specs[graph].output.shape(sizes)
        if output.shape != expected:
            raise BackendError(
                f"{self.name}: {graph}.onnx answers with the shape {list(output.shape)}, not {list(expected)}: export"
                " the checkpoint again"
            )
        return output

    def warm_up(self, shapes: Sequence[WarmUpShape]) -> None:
        """See `Backend`. The first run of any shape allocates; further ones are no slower for being new."""
        for shape in shapes or [WarmUpShape(1, min(LENGTHS[0], self._bundle.manifest.limits.max_length), 1)]:
            run_shape(self, self._bundle, shape)

    def close(self) -> None:
        """See `Backend`."""
        if self._origin.is_here:
            self._closed, self._sessions = True, {}
