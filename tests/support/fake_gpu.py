"""A CUDA device and a TensorRT library in host memory: they really compute, and notice what a real device would punish.

Streams are lazy: nothing queued runs before somebody waits for it, so that a missing wait shows. New memory is full of
NaN. Every access must lie in live memory. `FakeCuda.leaks` lists what was never freed.
"""

import itertools
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import RLock, get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from hvpnet_runtime import Bundle
from hvpnet_runtime.backends.cuda import Cuda, Device
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library
from hvpnet_runtime.backends.tensorrt.profiles import grounder_profiles, text_profiles, vision_profiles
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, engine_folder
from hvpnet_runtime.bundle import Precision, file_digests

FAKE_GPU = Device("NVIDIA Fake 1", "9.0", "13.0")


class FakeCuda(Cuda):
    """See the module. `eager` runs what is queued at once, for libraries that really compute when called."""

    def __init__(self, *, eager: bool = False, gpu: Device = FAKE_GPU) -> None:
        self.eager, self.gpu = eager, gpu
        self.memory: dict[int, np.ndarray] = {}
        self.host: set[int] = set()
        self.streams: dict[int, deque[Callable[[], None]]] = {}
        self.captures: dict[int, list[Callable[[], None]]] = {}
        self.capturing: set[int] = set()  # threads
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, tuple[int, object]] = {}
        self.done: set[int] = set()
        self.tokens: list[object] = []
        self.launches = self.synchronisations = self.allocations = 0
        self._ids = itertools.count(1)
        self._lock = RLock()

    def leaks(self) -> dict[str, int]:
        held = {"memory": self.memory, "streams": self.streams, "graphs": self.graphs, "events": self.events}
        return {name: len(values) for name, values in held.items() if values}

    def device(self) -> Device:
        return self.gpu

    def malloc(self, size: int) -> int:
        with self._lock:
            if get_ident() in self.capturing:
                raise AssertionError("memory is allocated during a capture")
            self.allocations += 1
            array = np.full(max(size, 1), 0xFF, np.uint8)  # NaN in every float format
            self.memory[array.ctypes.data] = array
            return int(array.ctypes.data)

    def free(self, address: int) -> None:
        with self._lock:
            for stream in list(self.streams):  # as cudaFree does
                self._drain(stream)
            del self.memory[address]

    def malloc_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        address = self.malloc(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        self.host.add(address)
        return self.memory[address].view(dtype).reshape(shape)

    def free_host(self, pinned: np.ndarray) -> None:
        self.host.remove(pinned.ctypes.data)
        self.free(pinned.ctypes.data)

    def at(self, address: int, size: int) -> np.ndarray:
        for start, array in self.memory.items():
            if start <= address and address + size <= start + array.nbytes:
                return array[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address} are not in live memory")

    def stream(self) -> int:
        number = next(self._ids)
        self.streams[number] = deque()
        return number

    def destroy_stream(self, stream: int) -> None:
        self._drain(stream)
        del self.streams[stream]

    def queue(self, stream: int, work: Callable[[], None]) -> None:
        with self._lock:
            if stream in self.captures:
                self.captures[stream].append(work)
            elif self.eager:
                work()
            else:
                self.streams[stream].append(work)

    def synchronize(self, stream: int) -> None:
        with self._lock:
            if stream in self.captures:
                raise AssertionError("a stream is synchronised during its capture")
            self.synchronisations += 1
            self._drain(stream)

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        def work() -> None:
            self.at(target, size)[:] = self.at(source, size)

        self.queue(stream, work)

    def event(self) -> int:
        number = next(self._ids)
        self.events[number] = (0, None)  # never recorded: already done
        return number

    def destroy_event(self, event: int) -> None:
        del self.events[event]

    def record(self, event: int, stream: int) -> None:
        token = object()
        with self._lock:
            self.tokens.append(token)  # alive, so that ids stay unique
            self.events[event] = (stream, token)
            self.queue(stream, lambda: self.done.add(id(token)))

    def wait(self, stream: int, event: int) -> None:
        source, token = self.events[event]

        def work() -> None:
            while token is not None and id(token) not in self.done:
                self.streams[source].popleft()()

        self.queue(stream, work)

    def begin_capture(self, stream: int) -> None:
        self.captures[stream] = []
        self.capturing.add(get_ident())

    def end_capture(self, stream: int) -> int:
        self.capturing.remove(get_ident())
        number = next(self._ids)
        self.graphs[number] = self.captures.pop(stream)
        return number

    def launch(self, graph: int, stream: int) -> None:
        self.launches += 1
        for work in self.graphs[graph]:
            self.queue(stream, work)

    def destroy_graph(self, graph: int) -> None:
        del self.graphs[graph]

    def _drain(self, stream: int) -> None:
        with self._lock:
            while self.streams[stream]:
                self.streams[stream].popleft()()


class FakeContext:
    def __init__(self, engine: "FakeEngine") -> None:
        self.engine, self.profile = engine, -1
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, profile: int, _stream: int) -> bool:
        self.profile = profile
        return 0 <= profile < len(self.engine.profiles)

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.profiles[self.profile][name]
        self.shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        symbols: dict[Any, int] = {}
        for node in self.engine.session.get_inputs():
            symbols |= dict(zip(node.shape, self.shapes[node.name], strict=True))
        (output,) = (node for node in self.engine.session.get_outputs() if node.name == name)
        return tuple(symbols.get(size, size) for size in output.shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch is not None
        cuda, state = self.engine.trt.cuda, (dict(self.shapes), dict(self.addresses), self.profile)

        def work() -> None:
            assert state == (self.shapes, self.addresses, self.profile), "the context changed under its CUDA graph"
            cuda.at(*self.scratch)  # type: ignore[misc]
            inputs = {node.name: self._tensor(node.name) for node in self.engine.session.get_inputs()}
            outputs = self.engine.session.run(None, inputs)
            for node, output in zip(self.engine.session.get_outputs(), outputs, strict=True):
                self._tensor(node.name)[...] = output

        cuda.queue(stream, work)
        self.engine.trt.executions += 1
        return not self.engine.trt.broken

    def is_stream_capturable(self, _stream: int) -> bool:
        return self.engine.trt.capturable

    def _tensor(self, name: str) -> np.ndarray:
        shape, dtype = self.get_tensor_shape(name), self.engine.get_tensor_dtype(name)
        size = int(np.prod(shape)) * dtype.itemsize
        return self.engine.trt.cuda.at(self.addresses[name], size).view(dtype).reshape(shape)


TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


class FakeEngine:
    device_memory_size_v2 = 4096

    def __init__(self, trt: "FakeLibrary", plan: dict[str, Any]) -> None:
        self.trt, self.profiles = trt, plan["profiles"]
        self.session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])
        self._nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self._nodes)

    def get_tensor_name(self, index: int) -> str:
        return str(self._nodes[index].name)

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(next(TYPES[node.type] for node in self._nodes if node.name == name))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (node,) = (node for node in self._nodes if node.name == name)
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in {node.name for node in self.session.get_inputs()} else "out"

    def create_runtime_config(self) -> SimpleNamespace:
        return SimpleNamespace(set_execution_context_allocation_strategy=lambda strategy: None)

    def create_execution_context(self, _config: Any) -> FakeContext:
        self.trt.contexts += 1
        return FakeContext(self)


class FakeLibrary(SimpleNamespace):
    """What the backend uses of the module `tensorrt`; a plan is JSON that names an ONNX file and its profiles."""

    def __init__(self, cuda: FakeCuda, version: str = "99.1") -> None:
        super().__init__(
            cuda=cuda,
            __version__=version,
            capturable=True,
            broken=False,
            executions=0,
            contexts=0,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            nptype=lambda dtype: dtype,
            Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=self._deserialise),
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=2),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER=1),
            ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM75": 75, "SM89": 89, "SM120": 120}),
        )

    def _deserialise(self, plan: bytes) -> FakeEngine | None:
        return FakeEngine(self, json.loads(plan)) if plan.startswith(b"{") else None


def fake_api(cuda: FakeCuda, engine: EngineName = "tensorrt", version: str = "99.1") -> Library:
    return Library(engine, FakeLibrary(cuda, version), None, [])


def write_fake_engines(
    bundle: Bundle,
    api: Library,
    precision: Precision = "fp32",
    max_batch: int = 4,
    max_length: int | None = None,
    *,
    grounder: bool = False,
) -> Path:
    """What `build_engines` would leave, of plans that `FakeLibrary` reads."""
    specs = bundle.specs(precision)
    longest = max_length or bundle.manifest.limits.max_length
    profiles = {
        graph: vision_profiles(max_batch) if graph == "vision" else text_profiles(longest, max_batch) for graph in specs
    }
    if grounder:
        specs |= bundle.grounder_specs()
        profiles |= grounder_profiles(bundle.grounder, 16)
    folder = engine_folder(bundle, api, FAKE_GPU)
    folder.mkdir(parents=True)
    for graph, spec in specs.items():
        shapes = [profile.shapes(spec) for profile in profiles[graph]]
        plan = {"onnx": str(bundle.onnx(graph, precision)), "profiles": shapes}
        (folder / f"{graph}.plan").write_text(json.dumps(plan), "utf-8")
    names = [f"onnx/{precision}/{graph}.onnx" for graph in specs]
    BuildRecord(
        engine=api.engine,
        version=api.version,
        cuda="13.0",
        driver=FAKE_GPU.driver,
        gpu=FAKE_GPU.name,
        compute_capability=FAKE_GPU.compute_capability,
        precision=precision,
        profiles=profiles,
        sources={name: bundle.manifest.files[name].sha256 for name in names},
        files=file_digests(folder),
        networks={},
        settings={},
        seconds=dict.fromkeys(specs, 0.0),
        gpus=(FAKE_GPU.compute_capability,),
    ).write(folder)
    return folder
