"""A TensorRT library on the fake CUDA device: it really computes, by ONNX Runtime, and counts what is alive of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import onnxruntime
from fake_cuda import FAKE_GPU, FakeCuda

from hvpnet_runtime import Bundle
from hvpnet_runtime.backends.cuda import Device
from hvpnet_runtime.backends.profiles import grounder_profiles, text_profiles, vision_profiles
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, engine_folder
from hvpnet_runtime.bundle import Precision, file_digests

__all__ = ["FAKE_GPU", "FakeContext", "FakeCuda", "FakeEngine", "FakeLibrary", "fake_api", "write_fake_engines"]


class FakeContext:
    def __init__(self, engine: "FakeEngine", cache: "FakeRuntimeCache | None" = None) -> None:
        self.engine, self.profile = engine, -1
        self._kernels = set() if cache is None else cache.kernels
        engine.trt.alive["contexts"].add(self)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None

    def __del__(self) -> None:
        self.engine.trt.wait_for_device()

    def set_optimization_profile_async(self, profile: int, _stream: int) -> bool:
        self.engine.trt.require("profile", RuntimeError("the profile cannot be selected"))
        self.profile = profile
        return 0 <= profile < len(self.engine.profiles)

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shapes.keys() == {node.name for node in self.engine.session.get_inputs()}
        return self.engine.trt.scratch_of(self.shapes)

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
        assert self.scratch[1] >= self.engine.trt.scratch_of(self.shapes)
        assert self.engine.trt.cuda.current_device() == self.engine.trt.cuda.stream_device[stream]
        kernel = f"{self.engine.onnx} {sorted(self.shapes.items())}"
        self.engine.trt.compiled += kernel not in self._kernels
        self._kernels.add(kernel)
        if self.engine.trt.on_execute is not None:
            self.engine.trt.on_execute(stream)
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
        if self.engine.trt.broken:
            self.engine.trt.report()
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


class FakeRuntimeCache:
    """What TensorRT for RTX compiled; a blob of another GPU is refused."""

    def __init__(self, trt: "FakeLibrary") -> None:
        self._gpu, self.kernels = trt.cuda.gpu.name, set[str]()
        trt.alive["caches"].add(self)

    def serialize(self) -> memoryview:
        return memoryview(json.dumps([self._gpu, *sorted(self.kernels)]).encode())

    def deserialize(self, blob: bytes) -> bool:
        gpu, *kernels = json.loads(blob) if blob.startswith(b"[") else [None]
        if gpu != self._gpu:
            return False
        self.kernels |= set(kernels)
        return True


class FakeRuntimeConfig:
    def __init__(self, trt: "FakeLibrary") -> None:
        self._trt, self.cache = trt, None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        assert strategy == self._trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self._trt)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeEngine:
    def __init__(self, trt: "FakeLibrary", runtime: object, plan: dict[str, Any]) -> None:
        self.trt, self.profiles, self.onnx = trt, plan["profiles"], plan["onnx"]
        self._runtime = runtime  # the real one keeps it alive too
        self.session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])
        self._nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.num_io_tensors = len(self._nodes)
        trt.alive["engines"].add(self)

    def get_tensor_name(self, index: int) -> str:
        return str(self._nodes[index].name)

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(next(TYPES[node.type] for node in self._nodes if node.name == name))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        (node,) = (node for node in self._nodes if node.name == name)
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in {node.name for node in self.session.get_inputs()} else "out"

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return self.trt.scratch_of({name: most for name, (_, _, most) in self.profiles[profile].items()})

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig(self.trt)

    def create_execution_context(self, config: Any) -> FakeContext | None:
        self.trt.contexts += 1
        self.trt.wait_for_device()
        if "context" in self.trt.null:
            self.trt.report()
            return None
        return FakeContext(self, getattr(config, "cache", None))


class FakeLibraryRuntime:
    """A `trt.Runtime`."""

    def __init__(self, trt: "FakeLibrary") -> None:
        trt.require("runtime", TypeError("pybind11::init(): factory function returned nullptr"))
        self._trt = trt
        trt.alive["runtimes"].add(self)

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        if plan.startswith(b"{"):
            return self._trt.engine_type(self._trt, self, json.loads(plan))
        self._trt.report()
        return None


class FakeLibrary(SimpleNamespace):
    """What the backend uses of the module `tensorrt`; a plan is JSON that names an ONNX file and its profiles.

    Attributes:
        engine_type: what plans become.
        alive: what was made and not freed; see `living`.
        null: what the library fails to make: `runtime`, `context`; or to select: `profile`.
        broken: whether it fails to run.
        reason: what the logger is told when a call fails.
        on_execute: called with the stream whenever work is queued.
        scratch_bytes: memory for activations per row.
        compiled: kernels that were in no cache.
    """

    def __init__(self, cuda: FakeCuda, version: str = "99.1") -> None:
        super().__init__(
            cuda=cuda,
            engine_type=FakeEngine,
            __version__=version,
            alive={name: WeakSet() for name in ("runtimes", "engines", "contexts", "caches")},
            null=set(),
            capturable=True,
            broken=False,
            reason="",
            errors=[],
            on_execute=None,
            scratch_bytes=64,
            executions=0,
            contexts=0,
            compiled=0,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            nptype=lambda dtype: dtype,
            Runtime=lambda _logger: FakeLibraryRuntime(self),
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=2),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER=1),
            ComputeCapability=SimpleNamespace(__members__={"NONE": 0, "SM75": 75, "SM89": 89, "SM120": 120}),
        )

    def living(self) -> dict[str, int]:
        return {name: len(things) for name, things in self.alive.items() if len(things)}

    def wait_for_device(self) -> None:
        """What contexts do when they are made and freed."""
        self.cuda.wait_for_device()

    def require(self, what: str, error: Exception) -> None:
        if what in self.null:
            raise error

    def report(self) -> None:
        """Tell the logger why a call fails, if there is a reason."""
        self.errors += [self.reason] if self.reason else []

    def scratch_of(self, shapes: dict[str, Any]) -> int:
        return int(self.scratch_bytes * max(shape[0] for shape in shapes.values()))


def fake_api(cuda: FakeCuda, engine: EngineName = "tensorrt", version: str = "99.1") -> Library:
    trt = FakeLibrary(cuda, version)
    return Library(engine, trt, None, trt.errors)


def write_fake_engines(
    bundle: Bundle,
    api: Library,
    precision: Precision = "fp32",
    max_batch: int = 4,
    max_length: int | None = None,
    *,
    grounder: bool = False,
    gpu: Device = FAKE_GPU,
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
    folder = engine_folder(bundle, api, gpu, precision)
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
        driver=gpu.driver,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        precision=precision,
        profiles=profiles,
        sources={name: bundle.manifest.files[name].sha256 for name in names},
        files=file_digests(folder),
        networks={},
        settings={},
        seconds=dict.fromkeys(specs, 0.0),
        gpus=(gpu.compute_capability,),
    ).write(folder)
    return folder
