"""One engine's plan: a graph parsed, checked and handed to the library's builder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.profiles import Profile
from hvpnet_runtime.backends.tensorrt.kernels import Kernels, count_kernels
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.network import check, parse, replace_wide_products
from hvpnet_runtime.backends.tensorrt.targets import TURING, set_targets
from hvpnet_runtime.bundle import Bundle, GraphSpec, Precision
from hvpnet_runtime.errors import BuildError
from hvpnet_runtime.types import Progress


@dataclass(frozen=True)
class BuilderSettings:
    """What all plans of a build have in common.

    Attributes:
        gpus: compute capabilities that they are for.
        workspace: most bytes of scratch memory that a layer may take; None leaves it to the library.
        optimisation_level: 0 to 5; None leaves it to the library.
        timing: file of what TensorRT measured in earlier builds.
    """

    gpus: tuple[str, ...]
    workspace: int | None
    optimisation_level: int | None
    timing: Path


@dataclass(frozen=True)
class PlannedGraph:
    """A graph that becomes a plan: its precision, and the shapes that it is built for."""

    spec: GraphSpec
    precision: Precision
    profiles: tuple[Profile, ...]

    @property
    def source(self) -> str:
        """Its ONNX file in the bundle."""
        return f"onnx/{self.precision}/{self.spec.name}.onnx"


@dataclass(frozen=True)
class Plan:
    """What is worth recording of a plan: its network, its kernels by profile, and the seconds that it took."""

    network: dict[str, Any]
    kernels: tuple[Kernels, ...]
    seconds: float


def write_plan(
    api: Library, bundle: Bundle, graph: PlannedGraph, settings: BuilderSettings, stage: Path, progress: Progress
) -> Plan:
    """Build one graph and write its plan.

    Args:
        api: the library.
        bundle: a checked bundle.
        graph: of the bundle.
        settings: see there.
        stage: folder of the plan.
        progress: is told each step of the build as it begins.

    Raises:
        BundleError: the graph is of another model.
        BuildError: the library does not build it, or it is not in its precision.
    """
    start, name = time.perf_counter(), graph.spec.name
    progress(f"parsing {name}.onnx")
    builder = api.builder()
    file = bundle.onnx(name, graph.precision)
    network = parse(api, builder, bundle.graph(name, graph.precision), file)
    facts = check(network, graph.spec, graph.precision, file)
    if name == "text" and TURING in settings.gpus:
        replace_wide_products(api, network)
    config = _config(api, builder, settings)
    config.progress_monitor = _monitor(api, f"{name}.plan", progress)
    for profile in graph.profiles:
        _add_profile(builder, config, profile.shapes(graph.spec))
    keep_timing = _timing_cache(api, config, settings.timing)
    with api.details() as details:
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{api.engine} {api.version} could not build {name}.plan: {api.last_error()}")
    (stage / f"{name}.plan").write_bytes(plan)
    keep_timing()
    return Plan(facts, count_kernels(details), round(time.perf_counter() - start, 3))


def _config(api: Library, builder: Any, settings: BuilderSettings) -> Any:  # noqa: ANN401
    config = builder.create_builder_config()
    config.clear_flag(api.trt.BuilderFlag.TF32)  # FP32 means FP32
    config.profiling_verbosity = api.trt.ProfilingVerbosity.DETAILED  # the library lists its kernels when it has built
    if api.portable:
        config.set_flag(api.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # without it, no CUDA graph can be captured
        set_targets(api, config, settings.gpus)
    if settings.workspace is not None:
        config.set_memory_pool_limit(api.trt.MemoryPoolType.WORKSPACE, settings.workspace)
    if settings.optimisation_level is not None:
        config.builder_optimization_level = settings.optimisation_level
    return config


def _add_profile(builder: Any, config: Any, shapes: dict[str, list[tuple[int, ...]]]) -> None:  # noqa: ANN401
    profile = builder.create_optimization_profile()
    for name, (least, expected, most) in shapes.items():
        profile.set_shape(name, least, expected, most)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"the library refuses the optimisation profile {shapes}")


def _timing_cache(api: Library, config: Any, path: Path) -> Callable[[], None]:  # noqa: ANN401
    """Begin with what was measured in earlier builds; the answer keeps what this one measured.

    TensorRT for RTX measures nothing and has none.
    """
    if api.portable:
        return lambda: None
    found = path.is_file() and not path.is_symlink()
    for content in (path.read_bytes() if found else b"", b""):
        timing = config.create_timing_cache(content)
        if timing is not None and config.set_timing_cache(timing, ignore_mismatch=False):
            break  # a damaged one, or one of another GPU, is refused: then begin an empty one
    else:
        raise BuildError(f"{api.engine} {api.version} takes no timing cache: {api.last_error()}")

    def keep() -> None:
        path.unlink(missing_ok=True)  # nothing is written through a link
        path.write_bytes(timing.serialize())

    return keep


def _monitor(api: Library, name: str, progress: Progress) -> Any:  # noqa: ANN401
    """An `IProgressMonitor` that reports the outermost phases; the library calls it from its own threads."""

    class Monitor(api.trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            api.trt.IProgressMonitor.__init__(self)

            self.outermost: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outermost[phase] = steps

        def phase_finish(self, phase: str) -> None:
            self.outermost.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase in self.outermost:
                progress(f"{name}: {phase.lower()}, step {step + 1} of {self.outermost[phase]}")
            return True  # False would cancel the build

    return Monitor()
