"""A stream of the device, and the executors of engines that take turns on it."""

from collections import OrderedDict
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import numpy.typing as npt

from hvpnet_runtime.backends.cuda import Cuda, Stream
from hvpnet_runtime.backends.engine import EngineLibrary, LoadedEngines
from hvpnet_runtime.backends.executor import Executor
from hvpnet_runtime.backends.profiles import Bucket
from hvpnet_runtime.backends.scratch import Scratch
from hvpnet_runtime.bundle import GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError, DeviceMemoryError

_SHARE = 8
"""Buffers of a lane's executors take at most the eighth part of the device's memory. Bytes are counted, not executors:
those of large batches hold a thousand times what those of one text do, which are the common ones and must not go for
them."""

_OVERHEAD = 8 * 2**20
"""Bytes that are counted for an executor beside its buffers: its context and graph, of which nothing tells the size."""

_Key: TypeAlias = tuple[GraphName, Bucket]


class Lane:
    """A stream, and the executors that run on it one after the other; not thread-safe.

    Args:
        cuda: the device.
        api: the engines' library.
        engines: which it runs; the caller closes them, after the lane.
        cuda_graphs: whether to launch CUDA graphs, or kernels one by one.
        stream: which the caller destroys; by default one of the lane's own.

    Raises:
        BackendError: the device refuses.
    """

    def __init__(
        self,
        cuda: Cuda,
        api: EngineLibrary,
        engines: LoadedEngines,
        *,
        cuda_graphs: bool,
        stream: Stream | None = None,
    ) -> None:
        cuda.use()
        self._cuda, self._api, self._engines, self._cuda_graphs = cuda, api, engines, cuda_graphs
        self._most_bytes = cuda.total_memory() // _SHARE
        self._executors: OrderedDict[_Key, Executor] = OrderedDict()  # the one that ran last at the end
        self._scratch = Scratch(cuda)
        self._owns_stream = stream is None
        self.stream = cuda.stream() if stream is None else stream

    def executor(self, spec: GraphSpec, bucket: Bucket) -> Executor:
        """The executor of a graph and bucket, made when first asked for, free to be filled.

        Raises:
            BackendError: the library or the device refuses.
            DeviceMemoryError: memory does not suffice; for a single row, not even without the other executors.
        """
        key = (spec.name, bucket)
        found = self._executors.get(key)
        if found is None:
            self.synchronize()  # what runs on the shared scratch memory must be done
            with self._cuda.exclusive():
                found = self._executors[key] = self._make(spec, bucket)
                self._drop(self._most_bytes)
        else:
            self._executors.move_to_end(key)
            if found.running:  # its pinned inputs may still be read
                self.synchronize()
        return found

    def synchronize(self) -> None:
        """Wait for everything queued."""
        self._cuda.synchronize(self.stream)
        for executor in self._executors.values():
            executor.running = False

    def close(self) -> None:
        """Free everything, whatever fails meanwhile."""
        with self._cuda.exclusive(), ExitStack() as held:
            if self._owns_stream:
                held.callback(self._cuda.destroy_stream, self.stream)
            while self._executors:
                held.callback(self._executors.popitem()[1].close)
            with suppress(BackendError):  # the device may be what failed
                self._cuda.synchronize(self.stream)

    def _make(self, spec: GraphSpec, bucket: Bucket) -> Executor:
        try:
            return self._make_beside(spec, bucket)
        except DeviceMemoryError:
            if bucket.rows > 1 or not self._executors:  # fewer rows may fit, and then nothing has to go
                raise
        self._drop(0)
        return self._make_beside(spec, bucket)

    def _make_beside(self, spec: GraphSpec, bucket: Bucket) -> Executor:
        return Executor(
            self._cuda,
            self._api,
            self._engines[spec.name],
            bucket.profile,
            spec.input_shapes(bucket.rows, bucket.length),
            self._scratch,
            self.stream,
            cuda_graph=self._cuda_graphs,
            cache=self._engines.cache,
        )

    def _drop(self, most_bytes: int) -> None:
        """Close those that ran longest ago, until the rest holds no more: all of them for 0, else all but one."""
        kept = 1 if most_bytes else 0
        while len(self._executors) > kept and self._held_bytes() > most_bytes:
            _, dropped = self._executors.popitem(last=False)
            dropped.close()

    def _held_bytes(self) -> int:
        return sum(executor.nbytes + _OVERHEAD for executor in self._executors.values())


def fill(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy into the corner of a larger array; what is left is padding, 0."""
    target.fill(0)
    target[tuple(slice(0, size) for size in source.shape)] = source
