"""The deserialised engines of some graphs, and all that must be freed with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.record import BuildRecord
from hvpnet_runtime.backends.tensorrt.runtime_cache import RuntimeCache
from hvpnet_runtime.bundle import Bundle, FoundTensor, GraphName, GraphSpec
from hvpnet_runtime.errors import BundleError, StaleEngineError
from hvpnet_runtime.processes import never_free_in_forks


class Engines:
    """Engines by graph, each held against what the graph reads and answers.

    Lanes ask this object and keep no engine, so that `close`, after theirs, frees the memory.

    Args:
        cuda: the device.
        api: the library.
        bundle: which they were built of.
        folder: where they stand.
        record: of that folder.
        specs: of the graphs to load.
        kernels: compiled ones that other engines of the folder use too.

    Raises:
        StaleEngineError: an engine has another interface than its graph, or is damaged.
        BackendError: the library does not load it; nothing is left on the device.
    """

    def __init__(
        self,
        cuda: Cuda,
        api: Library,
        bundle: Bundle,
        folder: Path,
        record: BuildRecord,
        specs: Mapping[GraphName, GraphSpec],
        kernels: RuntimeCache | None = None,
    ) -> None:
        self._cuda, self._api = cuda, api
        self._loaded: dict[GraphName, Any] = {}
        self.kernels = RuntimeCache(api, bundle, folder) if kernels is None else kernels
        cuda.use()
        try:
            with cuda.exclusive():  # it allocates, and the device may wait
                self._runtime = api.runtime()
                never_free_in_forks(self._runtime)
                for graph, spec in specs.items():
                    self._load(graph, record.plan(bundle, folder, graph), folder / f"{graph}.plan")
                    self._check(graph, spec, folder / f"{graph}.plan")
                self.kernels.open(next(iter(self._loaded.values())))
        except BaseException:
            self.close()
            raise

    def __getitem__(self, graph: GraphName) -> Any:  # noqa: ANN401  TensorRT has no types
        """The `ICudaEngine` of a graph."""
        return self._loaded[graph]

    @property
    def cache(self) -> Any:  # noqa: ANN401
        """The `IRuntimeCache` for contexts of these engines, or None."""
        return self.kernels.cache

    def close(self) -> None:
        """Free engines and runtime; contexts of theirs must be gone."""
        self._cuda.use()
        with self._cuda.exclusive():
            self._loaded.clear()
            self._runtime = None

    def _load(self, graph: GraphName, plan: bytes, file: Path) -> None:
        what = f"load {file} on this GPU"
        self._loaded[graph] = self._api.call(what, self._runtime.deserialize_cuda_engine, plan)
        never_free_in_forks(self._loaded[graph])

    def _check(self, graph: GraphName, spec: GraphSpec, file: Path) -> None:
        try:
            spec.check(file, *self._interface(graph))
        except BundleError as error:
            raise StaleEngineError(f"{error}, and build the engines again") from error

    def _interface(self, graph: GraphName) -> tuple[list[FoundTensor], list[FoundTensor]]:
        """What an engine reads, and what it answers; no error's traceback that keeps the engine comes from here."""
        engine, modes = self._loaded[graph], self._api.trt.TensorIOMode
        sides: dict[Any, list[FoundTensor]] = {modes.INPUT: [], modes.OUTPUT: []}
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            dtype = self._api.dtype(engine.get_tensor_dtype(name))
            axes = tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
            sides[engine.get_tensor_mode(name)].append(FoundTensor(name, dtype, axes))
        return sides[modes.INPUT], sides[modes.OUTPUT]
