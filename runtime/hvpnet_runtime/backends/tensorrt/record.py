"""build.json: what an engine was built from, with what and for what; and whether it may be loaded here."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hvpnet_runtime.backends.cuda import Device
from hvpnet_runtime.backends.profiles import Profile
from hvpnet_runtime.backends.tensorrt.library import Library
from hvpnet_runtime.backends.tensorrt.targets import listed, supported, usual
from hvpnet_runtime.bundle import QUANTISED, Bundle, FileDigest, GraphName, Precision
from hvpnet_runtime.bundle.files import check_file, read_checked, read_regular
from hvpnet_runtime.bundle.from_json import record_from_json
from hvpnet_runtime.errors import BackendError, BundleError, StaleEngineError

PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32", "int8_fp16")
"""Precisions of engines, the one to prefer first."""

_RECORD_BYTES = 2**20
"""Most bytes of build.json."""


@dataclass(frozen=True)
class BuildRecord:
    """The content of build.json.

    Attributes:
        engine: `tensorrt` or `tensorrt-rtx`.
        version: of that library.
        cuda: version of the CUDA runtime, or None where cuda-bindings is not installed.
        driver: CUDA version of the driver; None where there was no GPU.
        gpu: name of the GPU it was built on; None where there was none.
        compute_capability: of that GPU, as in `9.0`.
        precision: of the ONNX graphs.
        profiles: optimisation profiles by graph, in the engine's order.
        sources: sha256 of every ONNX file it was built from, by its path in the bundle.
        files: sha256 and bytes of every plan.
        networks: by graph, names and types of inputs and outputs, and how many layers of each kind have which type.
        settings: workspace bytes and optimisation level.
        seconds: build time by graph.
        gpus: compute capabilities of the GPUs that it runs on.
        kernels: by graph, how many kernels one run launches, by profile; none where the library did not say.
        fused_attention: of the text graph, how many attention layers became one kernel each (`fused`, of the profile
            that has the fewest), and how many there are (`layers`); None where the library did not say.
    """

    engine: str
    version: str
    cuda: str | None
    driver: str | None
    gpu: str | None
    compute_capability: str | None
    precision: Precision
    profiles: Mapping[GraphName, tuple[Profile, ...]]
    sources: Mapping[str, str]
    files: Mapping[str, FileDigest]
    networks: Mapping[GraphName, Mapping[str, Any]]
    settings: Mapping[str, Any]
    seconds: Mapping[GraphName, float]
    gpus: tuple[str, ...] = ()
    kernels: Mapping[GraphName, tuple[int, ...]] = field(default_factory=dict)
    fused_attention: Mapping[str, int] | None = None

    @property
    def runs_on(self) -> str:
        """The GPUs it is for, in words."""
        if self.engine == "tensorrt":
            return f"{self.gpu} ({self.compute_capability})"
        return f"GPUs of compute capability {listed(self.gpus)}" if self.gpus else "GPUs that build.json does not name"

    @property
    def attention(self) -> str | None:
        """How many attention layers became one kernel, in words."""
        fused = self.fused_attention
        return None if fused is None else f"{fused['fused']} of {fused['layers']} attention layers are one kernel each"

    @classmethod
    def read(cls, folder: Path) -> "BuildRecord":
        """Read build.json of a folder under a bundle's engines/.

        Raises:
            StaleEngineError: it is missing or damaged.
        """
        bundle, name = folder.parents[1], f"{folder.parent.name}/{folder.name}/build.json"
        try:
            return record_from_json(cls, json.loads(read_regular(bundle, name, _RECORD_BYTES)))
        except (BundleError, ValueError, RecursionError) as error:
            raise StaleEngineError(f"{folder} has no readable build.json ({error})") from error

    def write(self, folder: Path) -> None:
        """Write build.json."""
        (folder / "build.json").write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")

    def check(self, bundle: Bundle, folder: Path, api: Library, device: Device) -> None:
        """Refuse an engine that was built from other graphs, with another version, or for another GPU.

        Raises:
            StaleEngineError: it is stale; the message says why.
        """
        if self.version != api.version:
            raise StaleEngineError(f"{folder.name} was built with version {self.version}, {api.version} is installed")
        here = f"{device.name} ({device.compute_capability})"
        if not api.portable and (self.gpu, self.compute_capability) != (device.name, device.compute_capability):
            raise StaleEngineError(f"{folder.name} was built on {self.runs_on}, this is {here}")
        if api.portable and device.compute_capability not in self.gpus:
            raise StaleEngineError(f"{folder.name} was built for {self.runs_on}, this is {here}")
        self.check_files(bundle, folder)

    def check_files(self, bundle: Bundle, folder: Path) -> None:
        """Refuse an engine that was built from other graphs or is damaged, wherever it is to run.

        Raises:
            StaleEngineError: it is stale; the message says why.
        """
        self._check_values(bundle, folder)
        for name, digest in self.sources.items():
            listed = bundle.manifest.files.get(name)
            if listed is None or listed.sha256 != digest:
                raise StaleEngineError(f"{folder.name} was built from another {name}")
        for name, facts in self.files.items():
            try:
                check_file(bundle.path, f"engines/{folder.name}/{name}", facts)
            except BundleError as error:
                raise _changed(folder / name) from error

    def _check_values(self, bundle: Bundle, folder: Path) -> None:
        """What no type says: only the plans of this bundle's graphs are read, and profiles have sizes.

        A grounder that the bundle was given later has no plans.
        """
        graphs = bundle.specs(self.precision)
        if bundle.manifest.grounder is not None and "grounder" in self.profiles:
            graphs |= bundle.grounder_specs()
        sources = [name.rpartition("/")[2] for name in self.sources]
        for what, found, wanted in (
            ("profiles", self.profiles, graphs),
            ("files", self.files, [f"{graph}.plan" for graph in graphs]),
            ("sources", sources, [f"{graph}.onnx" for graph in graphs]),
        ):
            if set(found) != set(wanted):
                raise StaleEngineError(f"{folder}/build.json: {what} must be of {', '.join(wanted)}")
        if self.fused_attention is not None and set(self.fused_attention) != {"fused", "layers"}:
            raise StaleEngineError(f"{folder}/build.json: fused_attention must be of fused and layers")
        for graph, profiles in self.profiles.items():
            for profile in profiles:
                least, expected, most = profile.batch
                if not 1 <= least <= expected <= most or (profile.length or 0) < (graph == "text"):
                    raise StaleEngineError(f"{folder}/build.json: profiles.{graph} has {profile}")
        if "grounder" in graphs:
            built = max(profile.length or 0 for profile in self.profiles["grounder"])
            asked = len(bundle.grounder.words)
            if built < asked:  # its graph is the same however many words it is asked
                raise StaleEngineError(
                    f"{folder} was built for {built} words of the grounder, which is asked {asked} now"
                )

    def plan(self, bundle: Bundle, folder: Path, graph: GraphName) -> bytes:
        """The content of a plan, held against its digest: the bytes that are to be loaded.

        Raises:
            StaleEngineError: it is no longer what was built.
        """
        name = f"{graph}.plan"
        try:
            return read_checked(bundle.path, f"engines/{folder.name}/{name}", self.files[name])
        except BundleError as error:
            raise _changed(folder / name) from error


def _changed(plan: Path) -> StaleEngineError:
    return StaleEngineError(f"{plan} is missing, a link, or was changed")


def engine_folder(bundle: Bundle, api: Library, device: Device | None, precision: Precision) -> Path:
    """Where an engine of this library for this GPU stands; without a GPU, where a portable one does."""
    gpu = "portable" if api.portable or device is None else re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    return bundle.path / "engines" / f"{api.engine}-{api.version}-{gpu}-{precision}"


def built_engines(bundle: Bundle) -> dict[str, BuildRecord | StaleEngineError]:
    """What `hvpnet build` left in a bundle, by folder: the record, or why the engine cannot be loaded anywhere."""
    found: dict[str, BuildRecord | StaleEngineError] = {}
    for path in sorted((bundle.path / "engines").glob("tensorrt-*/build.json")):
        try:
            record = BuildRecord.read(path.parent)
            record.check_files(bundle, path.parent)
            found[path.parent.name] = record
        except StaleEngineError as error:
            found[path.parent.name] = error
    return found


def find_engine(bundle: Bundle, api: Library, device: Device, precision: str | None = None) -> tuple[Path, BuildRecord]:
    """The engine of a bundle that this library can run on this GPU.

    Args:
        bundle: a checked bundle.
        api: the library.
        device: the GPU.
        precision: of the engine; by default FP16, or else FP32, and INT8 alone where the bundle has no such graphs.

    Raises:
        BundleError: no engine has this precision, or the bundle has no graphs of it.
        BackendError: none was built, or the library has no kernels for this GPU.
        StaleEngineError: those that were built are stale; the message says why, and how to build again.
    """
    choices = _choices(bundle, precision)
    found, reasons = dict[Precision, tuple[Path, BuildRecord]](), list[tuple[Precision, str]]()
    others = tuple(f"-{each}" for each in PRECISIONS if each not in choices)
    # `tensorrt-*` alone would find those of TensorRT for RTX too: versions begin with a digit.
    # What was measured or compiled for a folder stands beside it, in a file of its name.
    for folder in sorted(filter(Path.is_dir, (bundle.path / "engines").glob(f"{api.engine}-[0-9]*"))):
        if folder.name.endswith(others):
            continue
        kind = choices[0]
        try:
            record = BuildRecord.read(folder)
            if record.precision in choices:
                kind = record.precision
                record.check(bundle, folder, api, device)
                found[kind] = folder, record
        except StaleEngineError as error:
            reasons.append((kind, str(error)))
    for each in choices:
        if each in found:
            return found[each]
    raise _no_engine(bundle, api, device, choices, reasons)


def _choices(bundle: Bundle, precision: str | None) -> tuple[Precision, ...]:
    """Precisions of engines that may be loaded, the best first: INT8, which costs accuracy, is taken for no other."""
    if precision is not None:
        return (bundle.prefer(*PRECISIONS, wanted=precision),)
    exact = tuple(each for each in PRECISIONS if each in bundle.manifest.precision and each not in QUANTISED)
    return exact or (bundle.prefer(*PRECISIONS),)


def _no_engine(
    bundle: Bundle,
    api: Library,
    device: Device,
    choices: Sequence[Precision],
    reasons: Sequence[tuple[Precision, str]],
) -> BackendError:
    """Why none of the engines loads, if there are any, and what makes one that does."""
    capability = device.compute_capability
    if api.portable and capability not in supported(api):
        return BackendError(
            f"{api.engine} {api.version} has kernels for compute capability {listed(supported(api))}, not for"
            f" {device.name} ({capability}): take another backend"
        )
    command, precision = f"hvpnet build {bundle.path} --engine {api.engine}", reasons[-1][0] if reasons else choices[0]
    if precision != "fp16":  # which is what it builds
        command += f" --precision {precision}"
    if api.portable and capability not in usual(api):
        command += f" --gpus {capability}"
    if not reasons:
        return BackendError(f"{bundle.path} has no {api.engine} engine of {' or '.join(choices)}: {command}")
    return StaleEngineError(f"{'; '.join(why for _, why in reversed(reasons))}: build again with {command}")
