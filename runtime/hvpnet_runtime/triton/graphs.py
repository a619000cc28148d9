"""Which of a bundle's graphs or engines Triton is to run, and with which shapes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvpnet_runtime.backends.base import MAX_PICTURES
from hvpnet_runtime.backends.profiles import text_lengths
from hvpnet_runtime.backends.tensorrt.record import BuildRecord
from hvpnet_runtime.bundle import Bundle, GraphName, GraphSpec, Precision
from hvpnet_runtime.errors import BackendError, RepositoryError

MAX_BATCH = 32
"""Default of the most tweets in one run."""


@dataclass(frozen=True)
class Graphs:
    """The graphs that Triton is to run.

    Attributes:
        platform: Triton's name of the backend and its format.
        precision: of the graphs.
        specs: by graph, its inputs and output.
        files: by graph, the file and its expected digest.
        profiles: by graph, how many optimisation profiles it has.
        lengths: pieces that texts are padded to.
        max_batch: most texts in one run.
        max_pictures: most pictures in one run.
    """

    platform: str
    precision: Precision
    specs: dict[GraphName, GraphSpec]
    files: dict[GraphName, tuple[Path, str]]
    profiles: dict[GraphName, int]
    lengths: tuple[int, ...]
    max_batch: int
    max_pictures: int


def find_graphs(
    bundle: Bundle, form: Literal["onnxruntime", "tensorrt"], name: str | None, max_batch: int | None
) -> Graphs:
    """The graphs of a bundle.

    Args:
        bundle: a checked bundle.
        form: which backend of Triton is to run them.
        name: precision of the ONNX graphs, or which folder under engines/; None for the default.
        max_batch: most texts in one run; None for the default.

    Raises:
        BundleError: the bundle does not have this precision.
        BackendError: it has no engine of TensorRT, or a stale one.
        RepositoryError: there are several engines to choose from, or the engine was built for smaller batches.
    """
    return _onnx(bundle, name, max_batch) if form == "onnxruntime" else _plans(bundle, name, max_batch)


def _onnx(bundle: Bundle, name: str | None, max_batch: int | None) -> Graphs:
    precision = bundle.prefer("fp16", "fp32", "int8", wanted=name)
    specs = bundle.specs(precision)
    files = {graph: bundle.onnx(graph, precision) for graph in specs}
    digests = bundle.manifest.files
    return Graphs(
        platform="onnxruntime_onnx",
        precision=precision,
        specs=specs,
        files={graph: (path, digests[f"onnx/{precision}/{path.name}"].sha256) for graph, path in files.items()},
        profiles={},
        lengths=text_lengths(bundle.manifest.limits.max_length),
        max_batch=max_batch or MAX_BATCH,
        max_pictures=MAX_PICTURES,
    )


def _plans(bundle: Bundle, name: str | None, max_batch: int | None) -> Graphs:
    folder = _find_engine(bundle, name)
    record = BuildRecord.read(folder)
    record.check_files(bundle, folder)
    most = {graph: max(profile.batch[2] for profile in profiles) for graph, profiles in record.profiles.items()}
    if max_batch is not None and max_batch > most["text"]:
        raise RepositoryError(f"{folder.name} was built for batches of {most['text']}, not of {max_batch}")
    specs = bundle.specs(record.precision)
    return Graphs(
        platform="tensorrt_plan",
        precision=record.precision,
        specs=specs,
        files={graph: (folder / f"{graph}.plan", record.files[f"{graph}.plan"].sha256) for graph in specs},
        profiles={graph: len(profiles) for graph, profiles in record.profiles.items()},
        lengths=tuple(sorted({profile.length for profile in record.profiles["text"] if profile.length})),
        max_batch=max_batch or min(MAX_BATCH, most["text"]),
        max_pictures=most.get("vision", MAX_PICTURES),
    )


def _find_engine(bundle: Bundle, name: str | None) -> Path:
    # Triton has no backend for plans of TensorRT for RTX. Versions begin with a digit.
    found = {path.parent.name: path.parent for path in bundle.path.glob("engines/tensorrt-[0-9]*/build.json")}
    if not found:
        raise BackendError(f"{bundle.path} has no TensorRT engine: hvpnet build {bundle.path} --engine tensorrt")
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise RepositoryError("choose an engine: " + " or ".join(f'graphs="{each}"' for each in sorted(found)))
    return found[name]
