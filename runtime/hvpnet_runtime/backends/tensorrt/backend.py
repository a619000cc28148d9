"""The bundle's TensorRT engines: buffers made once per bucket, one CUDA graph a request, prefixes on the device.

A request takes a lane: a stream with its own executors, so that several threads run at once. Between the vision and the
text engine nothing waits on the host; the text engine's stream waits for the events of the prefixes it reads.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Pixels, Prefix, TextInputs, no_pictures
from hvpnet_runtime.backends.cuda import Address, Cuda
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.tensorrt.executor import Executor
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.profiles import Bucket, Profile, choose_bucket
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError, BundleError, StaleEngineError

LANES = 2
"""Requests on the device at the same time: one computes while another copies."""


class TensorRTBackend:
    """See `Backend`. Prefixes are `DevicePrefix`.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        precision: of the graphs that the engines were built from.
        folder: the engines that were loaded.
        max_length: what `--max-seq` was when they were built, if that was less than the bundle's limit.

    Args:
        bundle: a checked bundle.
        engine: which library.
        lanes: requests at the same time.
        cuda_graphs: whether to launch CUDA graphs, or kernels one by one.
        cuda: the device; by default the current one.
        api: the library; by default the one of this name.

    Raises:
        MissingExtraError: the library or cuda-bindings is not installed.
        StaleEngineError: the engine was built from other graphs, with another version, for another GPU, or is damaged.
        BackendError: there is no GPU or no engine, or the library does not load it.
    """

    run_tokens: int | None = None

    def __init__(
        self,
        bundle: Bundle,
        engine: EngineName,
        *,
        lanes: int = LANES,
        cuda_graphs: bool = True,
        cuda: Cuda | None = None,
        api: Library | None = None,
    ) -> None:
        self.name: str = engine
        self._api = load_library(engine) if api is None else api
        self._cuda = Cuda() if cuda is None else cuda
        self.folder, record = find_engine(bundle, self._api, self._cuda.device())
        self.precision: str = record.precision
        self._specs, self._profiles = bundle.specs(record.precision), record.profiles
        longest = max(profile.length or 0 for profile in record.profiles["text"])
        self.max_length: int | None = longest if longest < bundle.manifest.limits.max_length else None
        runtime = self._api.trt.Runtime(self._api.logger)
        self._engines = {
            graph: self._deserialise(runtime, record.plan(bundle, self.folder, graph), self.folder / f"{graph}.plan")
            for graph in self._specs
        }
        for graph in self._specs:
            self._check_engine(graph)
        self._pool: PrefixPool | None = None
        if "vision" in self._specs:
            self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))
        self._lanes: LifoQueue[_Lane] = LifoQueue()
        self._all_lanes = [_Lane(self._cuda, self._api, self._engines, cuda_graphs=cuda_graphs) for _ in range(lanes)]
        for lane in self._all_lanes:
            self._lanes.put(lane)
        self._closing, self._closed = Lock(), False

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        if self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        most = _most_rows(self._profiles["vision"])
        prefixes: list[DevicePrefix] = []
        for start in range(0, len(pixels), most):
            part = pixels[start : start + most]  # [n, crop, crop, 3]
            bucket = choose_bucket(self._profiles["vision"], len(part))
            with self._lane() as lane:
                executor = lane.executor(self._specs["vision"], bucket)
                executor.host["images"][: len(part)] = part
                executor.start()
                prefixes += self._pool.store(executor.device["prefix"], len(part), lane.stream)
        return prefixes

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        if self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        with self._lane() as lane:
            return self._pool.place(prefix.astype(self._specs["vision"].output.dtype), lane.stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        most = _most_rows(self._profiles["text"])
        outputs = [
            self._encode_rows(text, prefixes, slice(start, min(start + most, len(text.input_ids))))
            for start in range(0, len(text.input_ids), most)
        ]
        return np.concatenate(outputs)

    def close(self) -> None:
        """See `Backend`. Waits for requests under way."""
        with self._closing:
            if self._closed:
                return
            for _ in self._all_lanes:
                self._lanes.get()
            self._closed = True
            for lane in self._all_lanes:
                lane.close()
                self._lanes.put(lane)  # so that a late request fails instead of waiting for ever
            if self._pool is not None:
                self._pool.close()
            self._engines = {}

    def _encode_rows(
        self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]], rows: slice
    ) -> npt.NDArray[np.float32]:
        arrays = text.rows(rows).arrays()
        count, length = arrays["input_ids"].shape
        bucket = choose_bucket(self._profiles["text"], count, length)
        with self._lane() as lane:
            executor = lane.executor(self._specs["text"], bucket)
            for name, array in arrays.items():
                _fill(executor.host[name], array)
            if self._pool is not None:
                gathered = cast("list[DevicePrefix]", [prefix for row in prefixes[rows] for prefix in row])
                self._pool.gather(executor.device["prefix"], gathered, lane.stream)
            executor.start()
            lane.synchronize()
            output = self._specs["text"].output
            shape = output.shape({"batch": count, "length": length})
            return np.array(executor.host[output.name][tuple(map(slice, shape))], np.float32)

    def _deserialise(self, runtime: Any, plan: bytes, file: Path) -> Any:  # noqa: ANN401  TensorRT has no types
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(f"{self.name} cannot load {file} on this GPU: {self._api.last_error()}")
        return engine

    def _check_engine(self, graph: GraphName) -> None:
        engine, file, modes = self._engines[graph], self.folder / f"{graph}.plan", self._api.trt.TensorIOMode
        sides: dict[Any, list[FoundTensor]] = {modes.INPUT: [], modes.OUTPUT: []}
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            dtype = np.dtype(self._api.trt.nptype(engine.get_tensor_dtype(name))).name
            axes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            sides[engine.get_tensor_mode(name)].append(FoundTensor(name, dtype, axes))
        try:
            self._specs[graph].check(file, sides[modes.INPUT], sides[modes.OUTPUT])
        except BundleError as error:
            raise StaleEngineError(f"{error}, and build the engines again") from error

    @contextmanager
    def _lane(self) -> Iterator["_Lane"]:
        lane = self._lanes.get()
        try:
            if self._closed:
                raise BackendError(f"the backend {self.name} is closed")
            yield lane
        finally:
            self._lanes.put(lane)


class _Lane:
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


def _most_rows(profiles: tuple[Profile, ...]) -> int:
    return max(profile.batch[2] for profile in profiles)


def _fill(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
    """Copy into the corner of a larger array; what is left is padding, 0."""
    target.fill(0)
    target[tuple(slice(0, size) for size in source.shape)] = source
