"""A loaded grounder: pictures and query vectors in, a box and a score for each query out, whatever runs its graphs.

It is loaded apart from the backend's other graphs (`BundleBackend.load_grounder`), for it finds objects where tweets
are prepared, and who gives the objects does without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.bundle import Axis, GraphName, GraphSpec
from hvpnet_runtime.bundle.grounder_spec import ADD_AGAIN
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.processes import Origin

MAX_GROUNDED = 8
"""Pictures in one run of the grounder, which bounds its activations."""

MAX_QUERIES = 16
"""Queries of one picture that are made of the text; a tweet of Twitter-2015 has 5.4 noun phrases on average."""

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

Run: TypeAlias = Callable[[GraphName, Mapping[str, Array]], Sequence[Array]]
"""Runs a loaded graph: its outputs, in the order of its `GraphSpec`."""

Shapes: TypeAlias = Iterable[tuple[int, int]]
"""Rows and length of runs, as `GraphSpec.sizes` takes them: pictures and queries, or queries and pieces."""


class Grounder:
    """Runs a grounder's graphs on arrays of the host; thread-safe.

    Attributes:
        name: of the backend that runs them.
        precision: of the graphs.

    Args:
        name: see above.
        precision: see above.
        specs: of the graphs.
        run: runs one; may be called from several threads at once.
        free: called once, when the grounder is closed.
        slow_at_first: shapes of each graph whose first run is slow; by default the smallest, for the first of any is.
    """

    def __init__(
        self,
        name: str,
        precision: str,
        specs: Mapping[GraphName, GraphSpec],
        run: Run,
        free: Callable[[], None] = lambda: None,
        slow_at_first: Mapping[GraphName, Shapes] | None = None,
    ) -> None:
        self.name, self.precision = name, precision
        self._slow_at_first = slow_at_first or {}
        self._specs, self._free = specs, free
        self._run: Run | None = run
        self._origin = Origin()

    def find_objects(self, images: npt.NDArray[np.uint8], queries: Floats) -> tuple[Floats, Floats]:
        """The best box of every query.

        Args:
            images: uint8 [N, S, S, 3], RGB, at most `MAX_GROUNDED`.
            queries: float32 [N, Q, D].

        Returns:
            Boxes float32 [N, Q, 4], (x0, y0, x1, y1) in shares of S, not clipped; and scores float32 [N, Q].

        Raises:
            BackendError: the backend failed, or the grounder is closed.
        """
        feeds: dict[str, Array] = {"images": images, "queries": queries}
        boxes, scores = self._outputs("grounder", feeds, {"pictures": len(images), "queries": queries.shape[1]})
        return boxes, scores

    def encode_queries(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> Floats:
        """Queries int64 [Q, L], padded, with 1 in the mask for a piece -> their vectors float32 [Q, D].

        Raises:
            BackendError: as `find_objects`.
        """
        feeds: dict[str, Array] = {"input_ids": input_ids, "attention_mask": attention_mask}
        rows, length = input_ids.shape
        (vectors,) = self._outputs("queries", feeds, {"queries": rows, "length": length})
        return vectors

    def warm_up(self) -> None:
        """Run what is slow the first time, the largest before the others, on pictures and texts that mean nothing.

        Raises:
            BackendError: as `find_objects`.
        """
        for graph, spec in self._specs.items():
            shapes = self._slow_at_first.get(graph, [(1, 1)])
            for rows, length in sorted(shapes, key=prod, reverse=True):
                sizes = spec.sizes(rows, length)
                feeds = {each.name: np.ones(each.shape(sizes), each.dtype) for each in spec.inputs}
                self._outputs(graph, feeds, sizes)

    def close(self) -> None:
        """Free the graphs; the grounder cannot be used afterwards."""
        if self._run is not None:
            self._run = None
            self._free()

    def _outputs(self, graph: GraphName, feeds: Mapping[str, Array], sizes: Mapping[Axis, int]) -> Sequence[Array]:
        """The outputs of a graph, whose shapes a graph may promise and not keep."""
        self._origin.check()
        run = self._run
        if run is None:
            raise BackendError(f"the grounder of {self.name} is closed")
        outputs = run(graph, feeds)
        for spec, output in zip(self._specs[graph].outputs, outputs, strict=True):
            if output.shape != spec.shape(sizes):
                raise BackendError(
                    f"{self.name}: {graph}.onnx answers with {spec.name} of the shape {list(output.shape)}, not"
                    f" {list(spec.shape(sizes))}: {ADD_AGAIN}"
                )
        return outputs
