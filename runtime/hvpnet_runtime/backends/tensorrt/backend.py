"""The bundle's TensorRT engines as a backend."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from hvpnet_runtime.backends.base import WarmUpShape
from hvpnet_runtime.backends.cuda import Cuda
from hvpnet_runtime.backends.device_backend import DeviceBackend
from hvpnet_runtime.backends.grounder import Grounder
from hvpnet_runtime.backends.lane import Lane
from hvpnet_runtime.backends.onnxruntime import load_cpu_grounder
from hvpnet_runtime.backends.tensorrt.engines import Engines
from hvpnet_runtime.backends.tensorrt.grounder import GrounderEngines
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.record import find_engine
from hvpnet_runtime.bundle import Bundle

_log = logging.getLogger(__name__)

LANES = 2
"""Requests on the device at the same time: one computes while another copies."""


class TensorRTBackend(DeviceBackend):
    """See `Backend` and `DeviceBackend`.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        precision: of the graphs that the engines were built from.
        folder: the engines that were loaded.
        max_length: what `--max-seq` was when they were built, if that was less than the bundle's limit.

    Args:
        bundle: a checked bundle.
        engine: which library.
        precision: of the engines; by default as `find_engine` chooses.
        lanes: requests at the same time.
        cuda_graphs: whether to launch CUDA graphs, or kernels one by one.
        cuda: the device; by default the first.
        api: the library; by default the one of this name.

    Raises:
        MissingExtraError: the library or cuda-bindings is not installed.
        BundleError: engines have no such precision, or the bundle has no graphs of it.
        StaleEngineError: the engine was built from other graphs, with another version, for another GPU, or is damaged.
        BackendError: there is no GPU or no engine of the precision, or the library does not load it.
    """

    longer_texts = "hvpnet build with a larger --max-seq, up to the bundle's limit"

    def __init__(
        self,
        bundle: Bundle,
        engine: EngineName,
        precision: str | None = None,
        *,
        lanes: int = LANES,
        cuda_graphs: bool = True,
        cuda: Cuda | None = None,
        api: Library | None = None,
    ) -> None:
        self._api = load_library(engine) if api is None else api
        cuda = Cuda(extra=engine) if cuda is None else cuda
        self.folder, self._record = find_engine(bundle, self._api, cuda.device(), precision)
        super().__init__(engine, bundle, self._record.precision, self._record.profiles, cuda)
        self.lanes, self._cuda_graphs = lanes, cuda_graphs
        with ExitStack() as held:  # freed from last to first, at once if anything fails here
            self._engines = Engines(cuda, self._api, bundle, self.folder, self._record, self._specs)
            held.callback(self._engines.close)
            held.callback(self._engines.kernels.close)
            self._open(held, (Lane(cuda, self._api, self._engines, cuda_graphs=cuda_graphs) for _ in range(lanes)))

    def load_grounder(self) -> Grounder:
        """See `BundleBackend`. Where it has no engines, ONNX Runtime runs it on the CPU, which a warning says."""
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
            held.callback(lane.close)
            run = GrounderEngines(self._cuda, lane, engines, specs, record.profiles)
            every = {graph: run.shapes(graph) for graph in specs}
            precision = self._bundle.grounder.prefer(self.precision)
            grounder = Grounder(self.name, precision, specs, run.run, run.close, every)
            held.pop_all()
        return grounder

    def warm_up(self, shapes: Sequence[WarmUpShape] = ()) -> None:
        """See `DeviceBackend`. What TensorRT for RTX compiles is kept beside the engines, for the next process."""
        super().warm_up(shapes)
        self._engines.kernels.save()
