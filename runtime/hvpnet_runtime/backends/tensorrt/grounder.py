"""The grounder's TensorRT engines: one run at a time, on a stream of their own, between arrays of the host."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np

from hvpnet_runtime.backends.base import Array
from hvpnet_runtime.backends.tensorrt.lane import Lane, fill
from hvpnet_runtime.backends.tensorrt.profiles import Profile, choose_bucket
from hvpnet_runtime.bundle import GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError


class GrounderEngines:
    """What a `Grounder` runs.

    Pictures, queries and pieces are padded to the profile's sizes; what is made of the padding is cut off.

    Args:
        lane: with the engines; closed with this.
        specs: of the graphs.
        profiles: of the engines.
    """

    def __init__(
        self, lane: Lane, specs: Mapping[GraphName, GraphSpec], profiles: Mapping[GraphName, tuple[Profile, ...]]
    ) -> None:
        self._lane, self._specs, self._profiles = lane, specs, profiles
        self._lock, self._closed = Lock(), False

    def run(self, graph: GraphName, feeds: Mapping[str, Array]) -> list[Array]:
        """See `Run`.

        Raises:
            BackendError: there are more pictures, queries or pieces than the engine was built for, or it failed.
        """
        rows, length = self._sizes(graph, feeds)
        spec, bucket = self._specs[graph], choose_bucket(self._profiles[graph], rows, length)
        with self._lock:
            if self._closed:
                raise BackendError("the grounder's engines are closed")
            executor = self._lane.executor(spec, bucket)
            for name, array in feeds.items():
                fill(executor.host[name], array)
            executor.start()
            self._lane.synchronize()
            shapes = {output.name: output.shape(spec.sizes(rows, length)) for output in spec.outputs}
            return [np.array(executor.host[name][tuple(map(slice, shape))]) for name, shape in shapes.items()]

    def close(self) -> None:
        """Free everything, once the run under way is done."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._lane.close()

    @staticmethod
    def _sizes(graph: GraphName, feeds: Mapping[str, Any]) -> tuple[int, int]:
        """Pictures and queries, or queries and pieces: the first two axes."""
        rows, length = feeds["queries" if graph == "grounder" else "input_ids"].shape[:2]
        return rows, length
