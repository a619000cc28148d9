"""The grounder's TensorRT engines: one run at a time, on a stream of their own, between arrays of the host."""

from collections.abc import Mapping
from contextlib import ExitStack
from threading import Lock
from typing import Any

import numpy as np

from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.backends.lane import Lane, fill
from hvpnet_runtime.backends.profiles import Profile, choose_bucket, every_bucket, most_rows
from hvpnet_runtime.backends.tensorrt.engines import Engines
from hvpnet_runtime.bundle import GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.processes import Origin


class GrounderEngines:
    """What a `Grounder` runs.

    Pictures, queries and pieces are padded to the profile's sizes; what is made of the padding is cut off.

    Args:
        cuda: the device.
        lane: runs the engines; closed with this.
        engines: likewise.
        specs: of the graphs.
        profiles: of the engines.
    """

    def __init__(
        self,
        cuda: Cuda,
        lane: Lane,
        engines: Engines,
        specs: Mapping[GraphName, GraphSpec],
        profiles: Mapping[GraphName, tuple[Profile, ...]],
    ) -> None:
        self._cuda, self._lane, self._engines, self._specs = cuda, lane, engines, specs
        self._profiles, self._halving, self._origin = profiles, Halving("the grounder's engines"), Origin()
        self._lock, self._closed = Lock(), False

    def run(self, graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
        """See `Run`.

        Raises:
            BackendError: there are more queries or pieces than the engine was built for, or it failed.
        """
        self._origin.check()
        rows, length = self._sizes(graph, feeds)

        def run_part(part: slice) -> list[Array]:
            return self._run_part(graph, {name: array[part] for name, array in feeds.items()})

        with self._lock:
            if self._closed:
                raise BackendError("the grounder's engines are closed")
            self._cuda.use()
            most = most_rows(self._profiles[graph])
            parts = self._halving.run((graph, length), rows, most, run_part)
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def shapes(self, graph: GraphName) -> list[tuple[int, int]]:
        """Rows and length of every bucket, whose first run is slow."""
        return [(bucket.rows, bucket.length or 0) for bucket in every_bucket(self._profiles[graph])]

    def close(self) -> None:
        """Free everything, once the run under way is done; a forked process has nothing to free."""
        if not self._origin.is_here:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._cuda.use()
            self._engines.kernels.save()
            with ExitStack() as held:
                held.callback(self._engines.close)
                held.callback(self._lane.close)

    def _run_part(self, graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
        spec, (rows, length) = self._specs[graph], self._sizes(graph, feeds)
        executor = self._lane.executor(spec, choose_bucket(self._profiles[graph], rows, length))
        for name, array in feeds.items():
            fill(executor.host[name], array)
        executor.start()
        self._lane.synchronize()
        shapes = {output.name: output.shape(spec.sizes(rows, length)) for output in spec.outputs}
        return [np.array(executor.host[name][tuple(map(slice, shape))]) for name, shape in shapes.items()]

    @staticmethod
    def _sizes(graph: GraphName, feeds: Mapping[str, Any]) -> tuple[int, int]:
        """Pictures and queries, or queries and pieces: the first two axes."""
        rows, length = feeds["queries" if graph == "grounder" else "input_ids"].shape[:2]
        return rows, length
