"""The bundle's TensorRT engines: buffers made once per bucket, one CUDA graph a request, prefixes on the device.

A request takes a lane: a stream with its own executors, so that several threads run at once. Between the vision and the
text engine nothing waits on the host; the text engine's stream waits for the events of the prefixes it reads.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from queue import LifoQueue
from threading import Lock
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Pixels, Prefix, TextInputs, WarmUpShape, no_pictures
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.backends.tensorrt.engines import Engines
from hvpnet_runtime.backends.tensorrt.grounder import GrounderEngines
from hvpnet_runtime.backends.tensorrt.lane import Lane, fill
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.profiles import Bucket, choose_bucket, every_bucket, most_rows
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.bundle import Bundle, GraphName
from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.processes import Origin

_log = logging.getLogger(__name__)

T = TypeVar("T")

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
        self.lanes = lanes
        self._api = load_library(engine) if api is None else api
        self._cuda = Cuda() if cuda is None else cuda
        self._bundle, self._cuda_graphs, self._origin = bundle, cuda_graphs, Origin()
        self.folder, record = find_engine(bundle, self._api, self._cuda.device())
        self.precision: str = record.precision
        self._specs, self._profiles, self._record = bundle.specs(record.precision), record.profiles, record
        longest = max(profile.length or 0 for profile in record.profiles["text"])
        self.max_length: int | None = longest if longest < bundle.manifest.limits.max_length else None
        self._halving = Halving(self.name)
        self._pool: PrefixPool | None = None
        self._lanes: LifoQueue[Lane] = LifoQueue()
        self._all_lanes: list[Lane] = []
        self._taking_all, self._closed = Lock(), False
        with ExitStack() as held:  # freed from last to first, at once if anything fails here
            self._engines = Engines(self._cuda, self._api, bundle, self.folder, record, self._specs)
            held.callback(self._engines.close)
            held.callback(self._engines.kernels.close)
            if "vision" in self._specs:
                self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))
                held.callback(self._pool.close)
            for _ in range(lanes):
                lane = Lane(self._cuda, self._api, self._engines, cuda_graphs=cuda_graphs)
                held.callback(lane.close)
                self._all_lanes.append(lane)
                self._lanes.put(lane)
            self._held = held.pop_all()

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. Where it has no engines, ONNX Runtime runs it on the CPU, which a warning says."""
        self._origin.check()
        self._require_open()
        specs, record = self._bundle.grounder_specs(), self._record
        if not specs.keys() <= record.profiles.keys():
            grounder = load_cpu_grounder(self._bundle, precision=self.precision)
            _log.warning(
                "objects are found by %s on the CPU: %s has no engine of the grounder, which hvpnet build makes",
                grounder.name,
                self.folder,
            )
            return grounder
        with ExitStack() as held:
            kernels = self._engines.kernels
            engines = Engines(self._cuda, self._api, self._bundle, self.folder, record, specs, kernels)
            held.callback(engines.close)
            lane = Lane(self._cuda, self._api, engines, cuda_graphs=self._cuda_graphs)
            held.pop_all()
        run = GrounderEngines(self._cuda, lane, engines, specs, record.profiles)
        return Grounder(self.name, self._bundle.grounder.prefer(self.precision), specs, run.run, run.close)

    def encode_pictures(self, pixels: Pixels) -> Sequence[Prefix]:
        """See `Backend`. Returns as soon as the work is queued."""
        pool = self._prefix_pool()

        def run(part: slice, bucket: Bucket) -> list[DevicePrefix]:
            count = part.stop - part.start
            with self._lane() as lane:
                executor = lane.executor(self._specs["vision"], bucket)
                executor.host["images"][:count] = pixels[part]  # [n, crop, crop, 3]
                executor.start()
                return pool.store(executor.device["prefix"], count, lane.stream)

        return [prefix for prefixes in self._in_parts("vision", len(pixels), None, run) for prefix in prefixes]

    def place_prefix(self, prefix: npt.NDArray[np.float32]) -> Prefix:
        """See `Backend`."""
        pool = self._prefix_pool()
        with self._lane() as lane:
            return pool.place(prefix.astype(self._specs["vision"].output.dtype), lane.stream)

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        """See `Backend`."""
        self._origin.check()
        rows, length = text.input_ids.shape

        def run(part: slice, bucket: Bucket) -> npt.NDArray[np.float32]:
            return self._encode_rows(text.rows(part), prefixes[part], bucket)

        return np.concatenate(self._in_parts("text", rows, length, run))

    def warm_up(self, shapes: Sequence[WarmUpShape] = ()) -> None:
        """See `Backend`. Every lane captures and runs each shape; none given: every bucket of the engines.

        Requests of other threads wait meanwhile. What TensorRT for RTX compiles for the shapes is kept beside the
        engines, for the next process.
        """
        self._origin.check()
        asked: set[tuple[GraphName, int, int | None]] = set()
        for shape in shapes:
            asked |= {("text", shape.texts, shape.length), ("vision", shape.pictures, None)}
        if not asked:
            asked = {
                (graph, bucket.rows, bucket.length)
                for graph in self._specs
                for bucket in every_bucket(self._profiles[graph])
            }
        largest_first = sorted(asked, key=lambda each: (each[1] * (each[2] or 1), each), reverse=True)
        with self._every_lane() as lanes:
            self._require_open()
            for lane in lanes:
                for graph, rows, length in largest_first:
                    if graph in self._specs:
                        self._in_parts(graph, rows, length, partial(self._warm_up, lane, graph))
                lane.synchronize()
        self._engines.kernels.save()

    def close(self) -> None:
        """See `Backend`. Waits for requests under way; a forked process has nothing to free."""
        if not self._origin.is_here:
            return
        with self._every_lane():
            self._closed = True
            self._all_lanes = []
            self._held.close()

    def _prefix_pool(self) -> PrefixPool:
        self._origin.check()
        if self._pool is None:
            raise BackendError(no_pictures(self.name, closed=self._closed))
        return self._pool

    def _in_parts(self, graph: GraphName, rows: int, length: int | None, run: Callable[[slice, Bucket], T]) -> list[T]:
        """Run rows in as few parts as the engine and the device's memory allow, each in the bucket that holds it."""
        profiles = self._profiles[graph]
        padded = choose_bucket(profiles, 1, length).length

        def run_part(part: slice) -> T:
            return run(part, choose_bucket(profiles, part.stop - part.start, length))

        return self._halving.run((graph, padded), rows, most_rows(profiles), run_part)

    def _encode_rows(
        self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]], bucket: Bucket
    ) -> npt.NDArray[np.float32]:
        with self._lane() as lane:
            executor = lane.executor(self._specs["text"], bucket)
            for name, array in text.arrays().items():
                fill(executor.host[name], array)
            if self._pool is not None:
                gathered = cast("list[DevicePrefix]", [prefix for row in prefixes for prefix in row])
                self._pool.gather(executor.device["prefix"], gathered, lane.stream)
            executor.start()
            lane.synchronize()
            output, (batch, length) = self._specs["text"].output, text.input_ids.shape
            shape = output.shape({"batch": batch, "length": length})
            return np.array(executor.host[output.name][tuple(map(slice, shape))], np.float32)

    def _warm_up(self, lane: Lane, graph: GraphName, _: slice, bucket: Bucket) -> None:
        lane.executor(self._specs[graph], bucket).start()  # on what its buffers hold; the first launch is slow too

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._lanes.get()
        try:
            self._require_open()
            self._cuda.use()
            yield lane
        finally:
            self._lanes.put(lane)

    @contextmanager
    def _every_lane(self) -> Iterator[list[Lane]]:
        """All lanes, once the requests under way are done; none of them after `close`."""
        taken: list[Lane] = []
        with self._taking_all:  # two that take them one by one would wait for each other
            try:
                while len(taken) < len(self._all_lanes):
                    taken.append(self._lanes.get())
                self._cuda.use()
                yield taken
            finally:
                for lane in taken:  # after `close` too, so that a late request fails instead of waiting for ever
                    self._lanes.put(lane)

    def _require_open(self) -> None:
        if self._closed:
            raise BackendError(f"the backend {self.name} is closed")
