"""Build the TensorRT engines of a bundle: staged beside their place and renamed; a failed build leaves nothing."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.cuda import cuda_runtime_version, find_device
from hvpnet_runtime.backends.grounder import MAX_QUERIES
from hvpnet_runtime.backends.profiles import (
    Profile,
    grounder_profiles,
    text_profiles,
    vision_profiles,
)
from hvpnet_runtime.backends.tensorrt.kernels import Kernels, count_kernels
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.network import check, parse, replace_wide_products
from hvpnet_runtime.backends.tensorrt.record import BuildRecord, engine_folder
from hvpnet_runtime.backends.tensorrt.targets import TURING, choose_targets, set_targets
from hvpnet_runtime.bundle import Bundle, GraphName, GraphSpec, Precision, file_digests
from hvpnet_runtime.bundle.staging import staged
from hvpnet_runtime.errors import BuildError, BundleError
from hvpnet_runtime.types import Progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    Attributes:
        engine: which library.
        precision: of the ONNX graphs that are built.
        max_batch: most texts in one run.
        max_length: most pieces of a text; None for the bundle's own limit.
        workspace: most bytes of scratch memory that a layer may take; None leaves it to the library.
        optimisation_level: 0 to 5, TensorRT's builder optimisation level; None leaves it to the library.
        gpus: compute capabilities that the engines are for, as in `8.9`, for TensorRT for RTX alone; empty for all of
            the library's but 7.5, whose engines are best built by themselves.

    Raises:
        BuildError: a number is out of its range, or the library cannot build for a choice of GPUs.
    """

    engine: EngineName
    precision: Precision = "fp16"
    max_batch: int = 32
    max_length: int | None = None
    workspace: int | None = None
    optimisation_level: int | None = None
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("max_length", 3), ("workspace", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BuildError(f"{name.replace('_', '-')} must be {least} or more, not {value}")
        if self.optimisation_level not in (None, *range(6)):
            raise BuildError(f"the optimisation level is 0 to 5, not {self.optimisation_level}")
        if self.gpus and self.engine == "tensorrt":
            raise BuildError("tensorrt builds for the GPU that is here alone: gpus is an option of tensorrt-rtx")
        if TURING in self.gpus and self.precision == "fp32":
            raise BuildError(f"{self.engine} has no FP32 products for GPUs of compute capability {TURING}: build fp16")


def build_engines(bundle: Bundle, options: BuildOptions, progress: Progress = lambda _: None) -> Path:
    """Build the engines of a bundle, its grounder's too, and put them under engines/.

    Args:
        bundle: a checked bundle.
        options: see `BuildOptions`.
        progress: is told each step of the build as it begins.

    Returns:
        The folder of the engines. Those built before with the same version for the same GPU are replaced.

    Raises:
        MissingExtraError: the library is not installed.
        BundleError: the bundle does not have this precision, or a graph is damaged or of another model.
        BuildError: the library failed, the graphs are not what it says, or the disk is full; nothing is changed.
    """
    if options.precision not in bundle.manifest.precision:  # before anything takes time
        raise BundleError(
            f"{bundle.path} has no {options.precision} graphs, only {', '.join(bundle.manifest.precision)}: "
            f"{_cure(options.precision, bundle)}"
        )
    limit = bundle.manifest.limits.max_length if options.max_length is None else options.max_length
    if limit > bundle.manifest.limits.max_length:
        raise BuildError(f"max-seq {limit} is beyond the bundle's limit of {bundle.manifest.limits.max_length} pieces")
    api = load_library(options.engine)
    specs = bundle.specs(options.precision)
    profiles: dict[GraphName, tuple[Profile, ...]] = {
        graph: vision_profiles() if graph == "vision" else text_profiles(limit, options.max_batch) for graph in specs
    }
    precisions: dict[GraphName, Precision] = dict.fromkeys(specs, options.precision)
    if (grounder := bundle.manifest.grounder) is not None:
        specs |= bundle.grounder_specs()
        profiles |= grounder_profiles(grounder, MAX_QUERIES)
        precisions |= dict.fromkeys(bundle.grounder_specs(), grounder.prefer(options.precision))
    device = find_device()
    options = replace(options, gpus=choose_targets(api, options.gpus, device))
    folder = engine_folder(bundle, api, device)
    with _staged(folder) as stage:
        cache = folder.parent / f"{folder.name}.timing"
        built = {
            graph: _build(api, bundle, spec, precisions[graph], profiles[graph], options, stage, cache, progress)
            for graph, spec in specs.items()
        }
        sources = sorted(f"onnx/{precision}/{graph}.onnx" for graph, precision in precisions.items())
        BuildRecord(
            engine=api.engine,
            version=api.version,
            cuda=cuda_runtime_version(),
            driver=device.driver if device else None,
            gpu=device.name if device else None,
            compute_capability=device.compute_capability if device else None,
            precision=options.precision,
            profiles=profiles,
            sources={name: bundle.manifest.files[name].sha256 for name in sources},
            files=file_digests(stage),
            networks={graph: each.network for graph, each in built.items()},
            settings={"workspace": options.workspace, "optimisation_level": options.optimisation_level},
            seconds={graph: each.seconds for graph, each in built.items()},
            gpus=options.gpus,
            kernels={
                graph: tuple(count.total for count in each.kernels) for graph, each in built.items() if each.kernels
            },
            fused_attention=_fused_attention(bundle, built["text"].kernels, options),
        ).write(stage)
    return folder


def _cure(precision: Precision, bundle: Bundle) -> str:
    """What gives graphs that can be built."""
    wanted = dict.fromkeys((*bundle.manifest.precision, precision))
    export = f"export the checkpoint again with hvpnet export --precision {','.join(wanted)}"
    others = [each for each in bundle.manifest.precision if each in ("fp32", "fp16")]
    return f'{export}, or build with precision="{others[0]}"' if others else export


@dataclass(frozen=True)
class _Built:
    """What is worth recording of a plan: its network, its kernels by profile, and the seconds that it took."""

    network: dict[str, Any]
    kernels: tuple[Kernels, ...]
    seconds: float


def _build(
    api: Library,
    bundle: Bundle,
    spec: GraphSpec,
    precision: Precision,
    profiles: tuple[Profile, ...],
    options: BuildOptions,
    stage: Path,
    cache: Path,
    progress: Progress,
) -> _Built:
    """Write one plan."""
    start = time.perf_counter()
    progress(f"parsing {spec.name}.onnx")
    builder = api.builder()
    file = bundle.onnx(spec.name, precision)
    network = parse(api, builder, bundle.graph(spec.name, precision), file)
    facts = check(network, spec, precision, file)
    if spec.name == "text" and TURING in options.gpus:
        replace_wide_products(api, network)
    config = _config(api, builder, options)
    config.progress_monitor = _monitor(api, f"{spec.name}.plan", progress)
    for profile in profiles:
        _add_profile(builder, config, profile.shapes(spec))
    timing = _timing_cache(api, config, cache)
    with api.details() as details:
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{api.engine} {api.version} could not build {spec.name}.plan: {api.last_error()}")
    (stage / f"{spec.name}.plan").write_bytes(plan)
    if timing is not None:
        cache.unlink(missing_ok=True)  # nothing is written through a link
        cache.write_bytes(timing.serialize())
    return _Built(facts, count_kernels(details), round(time.perf_counter() - start, 3))


def _config(api: Library, builder: Any, options: BuildOptions) -> Any:  # noqa: ANN401
    config = builder.create_builder_config()
    config.clear_flag(api.trt.BuilderFlag.TF32)  # FP32 means FP32
    config.profiling_verbosity = api.trt.ProfilingVerbosity.DETAILED  # the library lists its kernels when it has built
    if api.portable:
        config.set_flag(api.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # without it, no CUDA graph can be captured
        set_targets(api, config, options.gpus)
    if options.workspace is not None:
        config.set_memory_pool_limit(api.trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimisation_level is not None:
        config.builder_optimization_level = options.optimisation_level
    return config


def _fused_attention(bundle: Bundle, kernels: tuple[Kernels, ...], options: BuildOptions) -> dict[str, int] | None:
    """How many attention layers of the text graph became one kernel each; a warning where those of FP16 did not."""
    if not kernels:
        _log.warning("%s does not say which kernels text.plan has", options.engine)
        return None
    fused, layers = min(count.attention for count in kernels), bundle.manifest.sizes.layers
    if fused < layers and options.precision == "fp16":  # there is no such kernel for FP32
        _log.warning(
            "%d of %d attention layers of text.plan became one kernel each, the others run as several, which takes"
            " longer: another version of %s may know them",
            fused,
            layers,
            options.engine,
        )
    return {"fused": fused, "layers": layers}


def _add_profile(builder: Any, config: Any, shapes: dict[str, list[tuple[int, ...]]]) -> None:  # noqa: ANN401
    profile = builder.create_optimization_profile()
    for name, (least, expected, most) in shapes.items():
        profile.set_shape(name, least, expected, most)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"the library refuses the optimisation profile {shapes}")


def _timing_cache(api: Library, config: Any, path: Path) -> Any:  # noqa: ANN401
    """What was measured in earlier builds; TensorRT for RTX measures nothing and has none."""
    if api.portable:
        return None
    found = path.is_file() and not path.is_symlink()
    for content in (path.read_bytes() if found else b"", b""):
        timing = config.create_timing_cache(content)
        if timing is not None and config.set_timing_cache(timing, ignore_mismatch=False):
            return timing  # a damaged one, or one of another GPU, is refused: then begin an empty one
    raise BuildError(f"{api.engine} {api.version} takes no timing cache: {api.last_error()}")


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


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    try:
        with staged(folder, replace=True) as stage:
            yield stage
    except OSError as error:
        raise BuildError(f"the engines could not be written to {folder}: {error}") from error
    finally:
        with suppress(OSError):
            folder.parent.rmdir()  # an empty engines/ was not there before
