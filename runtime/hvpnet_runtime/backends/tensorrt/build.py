"""Build the TensorRT engines of a bundle: staged beside their place and renamed; a failed build leaves nothing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hvpnet_runtime.backends.cuda import Cuda, Device, cuda_runtime_version, find_device
from hvpnet_runtime.backends.grounder import MAX_QUERIES
from hvpnet_runtime.backends.profiles import grounder_profiles, text_profiles, vision_profiles
from hvpnet_runtime.backends.tensorrt.library import EngineName, Library, load_library
from hvpnet_runtime.backends.tensorrt.plan import BuilderSettings, Plan, PlannedGraph, write_plan
from hvpnet_runtime.backends.tensorrt.record import PRECISIONS, BuildRecord, engine_folder
from hvpnet_runtime.backends.tensorrt.targets import TURING, choose_targets
from hvpnet_runtime.bundle import Bundle, GraphName, Precision, file_digests
from hvpnet_runtime.bundle.precision import export_command
from hvpnet_runtime.bundle.staging import staged
from hvpnet_runtime.errors import BuildError, BundleError, brief
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
        device: number of the GPU, among those that this process may use, that tensorrt builds on and for; None for the
            first.

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
    device: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_batch", 1), ("max_length", 3), ("workspace", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise BuildError(f"{name.replace('_', '-')} must be {least} or more, not {value}")
        if self.optimisation_level not in (None, *range(6)):
            raise BuildError(f"the optimisation level is 0 to 5, not {self.optimisation_level}")
        if self.gpus and self.engine == "tensorrt":
            raise BuildError("tensorrt builds for the GPU that is here alone: gpus is an option of tensorrt-rtx")
        if self.device is not None and self.engine == "tensorrt-rtx":
            raise BuildError("tensorrt-rtx builds for GPUs that need not be here: choose them by gpus, not by device")
        if self.precision not in PRECISIONS:
            raise BuildError(f"{brief(self.precision)} graphs are not built: choose {' or '.join(PRECISIONS)}")
        if TURING in self.gpus and self.precision == "fp32":
            raise BuildError(f"{self.engine} has no FP32 products for GPUs of compute capability {TURING}: build fp16")


def build_engines(bundle: Bundle, options: BuildOptions, progress: Progress = lambda _: None) -> Path:
    """Build the engines of a bundle, its grounder's too, and put them under engines/.

    Args:
        bundle: a checked bundle.
        options: see `BuildOptions`.
        progress: is told each step of the build as it begins.

    Returns:
        The folder of the engines. Those built before in this precision with the same version for the same GPU are
        replaced.

    Raises:
        MissingExtraError: the library is not installed.
        BundleError: the bundle does not have this precision, or a graph is damaged or of another model.
        BackendError: there is no such GPU.
        BuildError: the library failed, the graphs are not what it says, or the disk is full; nothing is changed.
    """
    graphs = _choose_graphs(bundle, options)  # before anything takes time
    api = load_library(options.engine)
    device = _use_device(options)
    targets = choose_targets(api, options.gpus, device)
    folder = engine_folder(bundle, api, device, options.precision)
    timing = folder.parent / f"{folder.name}.timing"
    settings = BuilderSettings(targets, options.workspace, options.optimisation_level, timing)
    with _staged(folder) as stage:
        plans = {name: write_plan(api, bundle, graph, settings, stage, progress) for name, graph in graphs.items()}
        record = _record(api, bundle, options, device, graphs, plans, stage)
        replace(record, gpus=targets).write(stage)
    return folder


def _choose_graphs(bundle: Bundle, options: BuildOptions) -> dict[GraphName, PlannedGraph]:
    """The graphs of a bundle that are built, its grounder's too, and their profiles."""
    precision, most = options.precision, bundle.manifest.limits.max_length
    if precision not in bundle.manifest.precision:
        raise BundleError(
            f"{bundle.path} has no {precision} graphs, only {', '.join(bundle.manifest.precision)}: "
            f"{_cure(precision, bundle)}"
        )
    limit = most if options.max_length is None else options.max_length
    if limit > most:
        raise BuildError(f"max-seq {limit} is beyond the bundle's limit of {most} pieces")
    texts = text_profiles(limit, options.max_batch)
    graphs = {
        name: PlannedGraph(spec, precision, vision_profiles() if name == "vision" else texts)
        for name, spec in bundle.specs(precision).items()
    }
    if (grounder := bundle.manifest.grounder) is not None:
        profiles = grounder_profiles(grounder, MAX_QUERIES)
        for name, spec in bundle.grounder_specs().items():
            graphs[name] = PlannedGraph(spec, grounder.prefer(precision), profiles[name])
    return graphs


def _cure(precision: Precision, bundle: Bundle) -> str:
    """What gives graphs that can be built."""
    wanted = dict.fromkeys((*bundle.manifest.precision, precision))
    export = f"export the checkpoint again with {export_command(list(wanted))}"
    others = [each for each in PRECISIONS if each in bundle.manifest.precision]
    return f'{export}, or build with precision="{others[0]}"' if others else export


def _use_device(options: BuildOptions) -> Device | None:
    """The GPU that is built on, which this thread is put on; None where there is none and none was chosen."""
    if options.device is None:
        return find_device()
    cuda = Cuda(options.device, options.engine)
    cuda.use()
    return cuda.device()


def _record(
    api: Library,
    bundle: Bundle,
    options: BuildOptions,
    device: Device | None,
    graphs: Mapping[GraphName, PlannedGraph],
    plans: Mapping[GraphName, Plan],
    stage: Path,
) -> BuildRecord:
    sources = sorted(graph.source for graph in graphs.values())
    return BuildRecord(
        engine=api.engine,
        version=api.version,
        cuda=cuda_runtime_version(),
        driver=device.driver if device else None,
        gpu=device.name if device else None,
        compute_capability=device.compute_capability if device else None,
        precision=options.precision,
        profiles={name: graph.profiles for name, graph in graphs.items()},
        sources={name: bundle.manifest.files[name].sha256 for name in sources},
        files=file_digests(stage),
        networks={name: plan.network for name, plan in plans.items()},
        settings={"workspace": options.workspace, "optimisation_level": options.optimisation_level},
        seconds={name: plan.seconds for name, plan in plans.items()},
        kernels={name: tuple(count.total for count in plan.kernels) for name, plan in plans.items() if plan.kernels},
        fused_attention=_fused_attention(bundle, plans["text"], options),
    )


def _fused_attention(bundle: Bundle, text: Plan, options: BuildOptions) -> dict[str, int] | None:
    """How many attention layers of the text graph became one kernel each; a warning where those of FP16 did not."""
    if not text.kernels:
        _log.warning("%s does not say which kernels text.plan has", options.engine)
        return None
    fused, layers = min(count.attention for count in text.kernels), bundle.manifest.sizes.layers
    if fused < layers and options.precision != "fp32":  # there is no such kernel for FP32
        _log.warning(
            "%d of %d attention layers of text.plan became one kernel each, the others run as several, which takes"
            " longer: another version of %s may know them",
            fused,
            layers,
            options.engine,
        )
    return {"fused": fused, "layers": layers}


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
