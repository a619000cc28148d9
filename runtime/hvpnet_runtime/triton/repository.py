"""Write a Triton model repository of a bundle: staged beside its place and renamed, with the digest of every file.

- `NAME/config.pbtxt` and `NAME/1/model.py` are the Python model, and `NAME/1/bundle/` its bundle: whole, or without the
  graphs where other models run them;
- `NAME_vision/` (but for the variant text_only) and `NAME_text/` have a `config.pbtxt` and `1/model.onnx` or
  `1/model.plan` each; the self-contained form lacks them;
- `SHA256SUMS` lists all files, as `sha256sum --check` reads it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from hvpnet_runtime.bundle import Bundle, sha256
from hvpnet_runtime.bundle.files import copy_regular, regular_files
from hvpnet_runtime.bundle.onnx_file import require_own_weights
from hvpnet_runtime.bundle.staging import staged
from hvpnet_runtime.errors import RepositoryError, brief
from hvpnet_runtime.triton.config import graph_config, python_config
from hvpnet_runtime.triton.graphs import MAX_BATCH, Graphs, find_graphs
from hvpnet_runtime.triton.settings import BUNDLE, TRITON, Settings

Form: TypeAlias = Literal["onnxruntime", "tensorrt", "self-contained"]

_MODEL = '''"""Needs hvpnet in the Python that Triton runs."""

from hvpnet_runtime.triton.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class RepositoryOptions:
    """What a repository is to hold.

    Attributes:
        form: which backend of Triton runs the graphs, or `self-contained`: the Python model does all by itself.
        graphs: precision of the ONNX graphs (by default fp16 where the bundle has it, else fp32), or which engine under
            engines/ (by default the only one).
        name: of the Python model, and what the names of the graphs' models begin with.
        max_batch: most tweets in one run; None for 32, or less where the engine was built for less.
        instances: processes of the Python model.

    Raises:
        RepositoryError: a value is impossible.
    """

    form: Form = "onnxruntime"
    graphs: str | None = None
    name: str = "hvpnet"
    max_batch: int | None = None
    instances: int = 1

    def __post_init__(self) -> None:
        if self.form == "self-contained" and self.graphs is not None:
            raise RepositoryError("the self-contained form holds the whole bundle: leave out the choice of graphs")
        if not (self.name.isidentifier() and self.name.isascii()):
            raise RepositoryError(f"the model's name must be letters, digits and underscores, not {brief(self.name)}")
        for name in ("max_batch", "instances"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RepositoryError(f"{name.replace('_', '-')} must be 1 or more, not {value}")


def write_repository(bundle: Bundle, out: Path, options: RepositoryOptions) -> list[str]:
    """Write the repository.

    Args:
        bundle: a checked bundle.
        out: the repository's folder; must not exist.
        options: see `RepositoryOptions`.

    Returns:
        The names of its models.

    Raises:
        BundleError: the bundle does not have this precision; or what is to be copied is a link or no regular file, or a
            graph takes weights from elsewhere.
        BackendError: it has no engine of TensorRT, or a stale one.
        RepositoryError: `out` exists, there are several engines to choose from, the batch is too large for the engine,
            or the disk is full; nothing is left.
    """
    graphs = None
    if options.form != "self-contained":
        graphs = find_graphs(bundle, options.form, options.graphs, options.max_batch)
    try:
        with staged(out) as stage:
            return _write(bundle, stage, options, graphs)
    except OSError as error:
        raise RepositoryError(f"the repository could not be written: {error}") from error


def _write(bundle: Bundle, stage: Path, options: RepositoryOptions, graphs: Graphs | None) -> list[str]:
    model = stage / options.name
    expected = _copy_bundle(bundle, model / "1" / BUNDLE, whole=graphs is None)
    settings, max_batch = Settings(), options.max_batch or MAX_BATCH
    if graphs is not None:
        expected |= _write_graphs(bundle, stage, options.name, graphs)
        settings, max_batch = Settings(TRITON, precision=graphs.precision, lengths=graphs.lengths), graphs.max_batch
    config = python_config(options.name, max_batch, options.instances, settings.to_parameters())
    (model / "config.pbtxt").write_text(config, "utf-8")
    (model / "1" / "model.py").write_text(_MODEL, "utf-8")
    _write_digests(stage, expected)
    return sorted(path.name for path in stage.iterdir() if path.is_dir())


def _copy_bundle(bundle: Bundle, target: Path, *, whole: bool) -> dict[Path, str]:
    """Copy the bundle, or all but graphs and engines with a manifest that lists no more; the expected digests."""
    manifest = bundle.manifest
    if not whole:
        names = manifest.required_files(graphs=False)
        manifest = replace(manifest, files={name: manifest.files[name] for name in names})
    engines = regular_files(bundle.path, "engines") if whole else []
    for name in (*manifest.files, *engines):
        _copy(bundle, name, target / name)
    (target / "manifest.json").write_text(manifest.to_json(), "utf-8")
    return {target / name: facts.sha256 for name, facts in manifest.files.items()}


def _write_graphs(bundle: Bundle, stage: Path, name: str, graphs: Graphs) -> dict[Path, str]:
    expected = {}
    for graph, (file, digest) in graphs.files.items():
        model = stage / f"{name}_{graph}"
        copied = model / "1" / f"model{file.suffix}"
        _copy(bundle, file.relative_to(bundle.path).as_posix(), copied)
        expected[copied] = digest
        most = graphs.max_pictures if graph == "vision" else graphs.max_batch
        config = graph_config(model.name, graphs.platform, most, graphs.specs[graph], graphs.profiles.get(graph, 0))
        (model / "config.pbtxt").write_text(config, "utf-8")
    return expected


def _copy(bundle: Bundle, name: str, target: Path) -> None:
    copy_regular(bundle.path, name, target)
    if target.suffix == ".onnx":
        require_own_weights(target.read_bytes(), bundle.path / name)


def _write_digests(stage: Path, expected: dict[Path, str]) -> None:
    """SHA256SUMS of what was really written; a copy that is not what it was copied from is refused."""
    found = {path: sha256(path) for path in sorted(stage.rglob("*")) if path.is_file()}
    for path, digest in expected.items():
        if found[path] != digest:
            raise RepositoryError(f"the copy of {path.name} is damaged: its sha256 is not the bundle's; write it again")
    lines = (f"{digest}  {path.relative_to(stage).as_posix()}\n" for path, digest in found.items())
    (stage / "SHA256SUMS").write_text("".join(lines), "utf-8")
