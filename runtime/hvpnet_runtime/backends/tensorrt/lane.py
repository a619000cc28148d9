"""A stream of the device, and the executors of engines that take turns on it."""

from typing import Any

import numpy.typing as npt

from hvpnet_runtime.backends.cuda import Address, Cuda
from hvpnet_runtime.backends.tensorrt.executor import Executor
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.profiles import Bucket
from hvpnet_runtime.bundle import GraphName, GraphSpec


class Lane:
    """A stream, and the executors that run on it one after the other."""

    def __init__(self, cuda: Cuda, api: Library, engines: dict[GraphName, Any], *, cuda_graphs: bool) -> None:
        self.stream = cuda.stream()
        self._cuda, self._api, self._engines, self._cuda_graphs = cuda, api, engines, cuda_graphs
        self._executors: dict[tuple[GraphName, Bucket], Executor] = {}
        self._scratch: dict[GraphName, tuple[Address, int]] = {}

    def executor(self, spec: GraphSpec, bucket: Bucket) -> Executor:
        """The executor of a graph and bucket, made when first asked for, free to be filled."""
        found = self._executors.get((spec.name, bucket))
        if found is None:
            self.synchronize()  # what runs on the shared scratch memory must be done
            found = self._executors[spec.name, bucket] = Executor(
                self._cuda,
                self._api,
                self._engines[spec.name],
                bucket.profile,
                spec.input_shapes(bucket.rows, bucket.length),
                self._scratch_of(spec.name),
                self.stream,
                cuda_graph=self._cuda_graphs,
            )
        elif found.running:  # its pinned inputs may still be read
            self.synchronize()
        return found

    def synchronize(self) -> None:
        """Wait for everything queued."""
        self._cuda.synchronize(self.stream)
        for executor in self._executors.values():
            executor.running = False

    def close(self) -> None:
        """Free everything."""
        self.synchronize()
        for executor in self._executors.values():
            executor.close()
        for address, _ in self._scratch.values():
            self._cuda.free(address)
        self._executors, self._scratch = {}, {}
        self._cuda.destroy_stream(self.stream)

    def _scratch_of(self, graph: GraphName) -> tuple[Address, int]:
        if graph not in self._scratch:
            size = int(self._engines[graph].device_memory_size_v2)
            self._scratch[graph] = self._cuda.malloc(size), size
        return self._scratch[graph]


def fill(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy into the corner of a larger array; what is left is padding, 0."""
    target.fill(0)
    target[tuple(slice(0, size) for size in source.shape)] = source
