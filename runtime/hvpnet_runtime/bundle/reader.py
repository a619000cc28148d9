"""Read a bundle: the manifest's schema, the presence of every file and its digest, before anything is parsed."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.bundle.arrays import read_arrays
from hvpnet_runtime.bundle.graph_spec import GraphName, GraphSpec, graph_specs
from hvpnet_runtime.bundle.manifest import FileDigest, Manifest, PictureSpec, Precision, Sizes, Task
from hvpnet_runtime.errors import BundleError


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, path: Path | str) -> "Bundle":
        """Read and check a bundle.

        Raises:
            BundleError: no bundle, another schema, or a file that is missing, truncated or edited (it is named).
        """
        path = Path(path)
        manifest = _read_manifest(path / "manifest.json")
        _check_files(path, manifest.required_files, manifest.files)
        return cls(path, manifest)

    @property
    def task(self) -> Task:
        """What it extracts: `ner` or `re`."""
        return self.manifest.task

    @property
    def labels(self) -> tuple[str, ...]:
        """NER labels or relations by index."""
        return self.manifest.labels

    @property
    def sizes(self) -> Sizes:
        """Sizes of the model."""
        return self.manifest.sizes

    @property
    def pictures(self) -> PictureSpec | None:
        """How pictures are read; None if the model reads none."""
        return self.manifest.preprocessing if self.sizes.pictures else None

    def specs(self, precision: Precision) -> dict[GraphName, GraphSpec]:
        """What the graphs of this precision read and answer; see `graph_specs`."""
        return graph_specs(self.manifest, precision)

    def onnx(self, graph: GraphName, precision: str = "fp32") -> Path:
        """Path of a graph.

        Raises:
            BundleError: the bundle does not have this precision.
        """
        if precision not in self.manifest.precision:
            raise BundleError(f"{self.path} has no {precision} graphs, only {', '.join(self.manifest.precision)}")
        return self.path / "onnx" / precision / f"{graph}.onnx"

    def prefer(self, *precisions: Precision, wanted: str | None = None) -> Precision:
        """The wanted one of the precisions that a backend runs, or else the first of them that the bundle has.

        Raises:
            BundleError: the backend does not run what is wanted, or the bundle has none of them.
        """
        if wanted is not None and wanted not in precisions:
            raise BundleError(f"{wanted} graphs do not run on this backend: choose {' or '.join(precisions)}")
        for precision in precisions:
            if wanted in (None, precision) and precision in self.manifest.precision:
                return precision
        missing = wanted or " or ".join(precisions)
        raise BundleError(f"{self.path} has no {missing} graphs, only {', '.join(self.manifest.precision)}")

    def blank_prefix(self) -> npt.NDArray[np.float32]:
        """The prefix of the blank picture that stands for a missing one, float32 [layers, 2, prefix_length * hidden].

        Raises:
            BundleError: blank.npz is damaged or of another model.
        """
        path, shape = self.path / "blank.npz", self.manifest.sizes.prefix_shape
        prefix = read_arrays(path, "prefix")["prefix"]
        if prefix.dtype != np.float32 or prefix.shape != shape:
            raise BundleError(f"{path}: prefix is {prefix.dtype} {list(prefix.shape)}, the graphs read {list(shape)}")
        return prefix.astype(np.float32)


def sha256(file: Path) -> str:
    """Digest of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, FileDigest]:
    """What every file of a folder is, by its path inside it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileDigest(sha256(path), path.stat().st_size) for path in files}


def _read_manifest(file: Path) -> Manifest:
    try:
        values = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BundleError(f"{file.parent} is not a bundle: {file} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not JSON: the bundle is damaged ({error})") from error
    try:
        return Manifest.from_dict(values)
    except ValueError as error:
        raise BundleError(f"{file} is not a manifest that this version reads: {error}") from error


def _check_files(path: Path, required: tuple[str, ...], files: Mapping[str, FileDigest]) -> None:
    unlisted = [name for name in required if name not in files]
    if unlisted:
        raise BundleError(f"{path / 'manifest.json'} lists no {', '.join(unlisted)}: export the checkpoint again")
    for name, facts in files.items():
        file = path / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{path / 'manifest.json'} lists {name}, which lies outside the bundle")
        if not file.is_file():
            raise BundleError(f"{file} is missing: copy the whole bundle again")
        size = file.stat().st_size
        if size != facts.bytes:
            raise BundleError(f"{file} has {size} bytes, the manifest says {facts.bytes}: copy the bundle again")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        digests = pool.map(sha256, [path / name for name in files])
        for (name, facts), digest in zip(files.items(), digests, strict=True):
            if digest != facts.sha256:
                raise BundleError(f"{path / name} was changed after the export: its sha256 is not the manifest's")
