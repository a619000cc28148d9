"""The bundle's TensorRT engines: buffers made once per bucket, one CUDA graph a request, prefixes on the device.

A request takes a lane: a stream with its own executors, so that several threads run at once. Between the vision and the
text engine nothing waits on the host; the text engine's stream waits for the events of the prefixes it reads.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.backends.base import Pixels, Prefix, TextInputs, WarmUpShape, no_pictures, run_shape
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.device_prefixes import DevicePrefix, PrefixPool
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.backends.tensorrt.grounder import GrounderEngines
from hvpnet_runtime.backends.tensorrt.lane import Lane, fill
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.profiles import Profile, choose_bucket
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName, GraphSpec
from hvpnet_runtime.errors import BackendError, BundleError, StaleEngineError

_log = logging.getLogger(__name__)

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
        self._bundle, self._cuda_graphs = bundle, cuda_graphs
        self.folder, record = find_engine(bundle, self._api, self._cuda.device())
        self.precision: str = record.precision
        self._specs, self._profiles, self._record = bundle.specs(record.precision), record.profiles, record
        longest = max(profile.length or 0 for profile in record.profiles["text"])
        self.max_length: int | None = longest if longest < bundle.manifest.limits.max_length else None
        self._engines = self._load_engines(self._specs)
        self._pool: PrefixPool | None = None
        if "vision" in self._specs:
            self._pool = PrefixPool(self._cuda, self._specs["vision"].output.nbytes({"pictures": 1}))
        self._lanes: LifoQueue[Lane] = LifoQueue()
        self._all_lanes = [Lane(self._cuda, self._api, self._engines, cuda_graphs=cuda_graphs) for _ in range(lanes)]
        for lane in self._all_lanes:
            self._lanes.put(lane)
        self._closing, self._closed = Lock(), False

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. Where it has no engines, ONNX Runtime runs it on the CPU, which a warning says."""
        specs, record = self._bundle.grounder_specs(), self._record
        if not specs.keys() <= record.profiles.keys():
            grounder = load_cpu_grounder(self._bundle, precision=self.precision)
            _log.warning(
                "objects are found by %s on the CPU: %s has no engine of the grounder, which hvpnet build makes",
                grounder.name,
                self.folder,
            )
            return grounder
        lane = Lane(self._cuda, self._api, self._load_engines(specs), cuda_graphs=self._cuda_graphs)
        engines = GrounderEngines(lane, specs, record.profiles)
        return Grounder(self.name, self._bundle.grounder.prefer(self.precision), specs, engines.run, engines.close)

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

    def warm_up(self, shapes: Sequence[WarmUpShape]) -> None:
        """See `Backend`."""
        for shape in shapes:
            run_shape(self, self._bundle, shape)

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
                fill(executor.host[name], array)
            if self._pool is not None:
                gathered = cast("list[DevicePrefix]", [prefix for row in prefixes[rows] for prefix in row])
                self._pool.gather(executor.device["prefix"], gathered, lane.stream)
            executor.start()
            lane.synchronize()
            output = self._specs["text"].output
            shape = output.shape({"batch": count, "length": length})
            return np.array(executor.host[output.name][tuple(map(slice, shape))], np.float32)

    def _load_engines(self, specs: Mapping[GraphName, GraphSpec]) -> dict[GraphName, Any]:
        """Engines by graph, each held against what the graph reads and answers."""
        runtime = self._api.trt.Runtime(self._api.logger)
        engines = {
            graph: self._deserialise(
                runtime, self._record.plan(self._bundle, self.folder, graph), self.folder / f"{graph}.plan"
            )
            for graph in specs
        }
        for graph, engine in engines.items():
            self._check_engine(engine, specs[graph], self.folder / f"{graph}.plan")
        return engines

    def _deserialise(self, runtime: Any, plan: bytes, file: Path) -> Any:  # noqa: ANN401  TensorRT has no types
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError(f"{self.name} cannot load {file} on this GPU: {self._api.last_error()}")
        return engine

    def _check_engine(self, engine: Any, spec: GraphSpec, file: Path) -> None:  # noqa: ANN401
        modes = self._api.trt.TensorIOMode
        sides: dict[Any, list[FoundTensor]] = {modes.INPUT: [], modes.OUTPUT: []}
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            dtype = np.dtype(self._api.trt.nptype(engine.get_tensor_dtype(name))).name
            axes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            sides[engine.get_tensor_mode(name)].append(FoundTensor(name, dtype, axes))
        try:
            spec.check(file, sides[modes.INPUT], sides[modes.OUTPUT])
        except BundleError as error:
            raise StaleEngineError(f"{error}, and build the engines again") from error

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._lanes.get()
        try:
            if self._closed:
                raise BackendError(f"the backend {self.name} is closed")
            yield lane
        finally:
            self._lanes.put(lane)


def _most_rows(profiles: tuple[Profile, ...]) -> int:
    return max(profile.batch[2] for profile in profiles)
