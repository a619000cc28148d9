"""Read a bundle: the manifest's schema, the presence of every file and its digest, before anything is parsed."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.bundle.arrays import read_arrays
from hvpnet_runtime.bundle.files import check_file, read_checked, read_regular
from hvpnet_runtime.bundle.graph_spec import GraphName, GraphSpec, graph_specs, grounder_specs
from hvpnet_runtime.bundle.grounder_spec import ADD_AGAIN, FIXED_QUERIES, GrounderSpec, remake
from hvpnet_runtime.bundle.manifest import FileDigest, Manifest, PictureSpec, Sizes, Task
from hvpnet_runtime.bundle.onnx_file import require_own_weights
from hvpnet_runtime.bundle.precision import Precision
from hvpnet_runtime.errors import BundleError, brief

_MANIFEST_BYTES = 64 * 2**20
"""Most bytes of manifest.json; a parity report may list many decisions."""


GIVE_GROUNDER = "give the bundle one with hvpnet ground add, or export it again with hvpnet export --grounder"
"""What to do about a bundle without a grounder."""


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
    def load(cls, path: Path | str, *, graphs: bool = True, grounder: bool = True) -> "Bundle":
        """Read and check a bundle.

        Args:
            path: its folder.
            graphs: whether it must have those of its model; a copy whose graphs somebody else runs does without.
            grounder: whether the files of its grounder are looked at; whoever replaces it does without them.

        Raises:
            BundleError: no bundle, another schema, or a file that is missing, truncated or edited (it is named).
        """
        path = Path(path)
        manifest = read_manifest(path)
        ignored = manifest.grounder.required_files() if manifest.grounder and not grounder else ()
        required = [name for name in manifest.required_files(graphs=graphs) if name not in ignored]
        _check_files(path, required, {name: facts for name, facts in manifest.files.items() if name not in ignored})
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

    @property
    def grounder(self) -> GrounderSpec:
        """The grounder.

        Raises:
            BundleError: the bundle has none, or its model reads no pictures.
        """
        require_pictures(self.manifest)
        if self.manifest.grounder is None:
            raise BundleError(f"{self.path} has no grounder, which finds objects: {GIVE_GROUNDER}")
        return self.manifest.grounder

    def grounder_specs(self) -> dict[GraphName, GraphSpec]:
        """What the grounder's graphs read and answer, in any precision; see `grounder_specs`.

        Raises:
            BundleError: the bundle has no grounder.
        """
        return grounder_specs(self.grounder)

    def grounder_queries(self) -> npt.NDArray[np.float32]:
        """The vectors of the fixed queries, float32 [queries, query_size], in the order of their words.

        Raises:
            BundleError: the bundle has no grounder or its queries are of the text, or grounder.npz is damaged.
        """
        spec = self.grounder
        return self._finite(FIXED_QUERIES, {"queries": (len(spec.words), spec.query_size)})["queries"]

    def onnx(self, graph: GraphName, precision: str = "fp32") -> Path:
        """Path of a graph.

        Raises:
            BundleError: the bundle does not have this precision of it.
        """
        of_grounder = graph in ("grounder", "queries")
        precisions = self.grounder.precision if of_grounder else self.manifest.precision
        if precision not in precisions:
            whose = "grounder" if of_grounder else "graphs"
            raise BundleError(f"{self.path} has no {precision} {whose}, only {', '.join(precisions)}")
        return self.path / "onnx" / precision / f"{graph}.onnx"

    def prefer(self, *precisions: Precision, wanted: str | None = None) -> Precision:
        """The wanted one of the precisions that a backend runs, or else the first of them that the bundle has.

        Raises:
            BundleError: the backend does not run what is wanted, or the bundle has none of them.
        """
        if wanted is not None and wanted not in precisions:
            raise BundleError(f"{brief(wanted)} graphs do not run on this backend: choose {' or '.join(precisions)}")
        for precision in precisions:
            if wanted in (None, precision) and precision in self.manifest.precision:
                return precision
        missing = wanted or " or ".join(precisions)
        raise BundleError(f"{self.path} has no {missing} graphs, only {', '.join(self.manifest.precision)}")

    def read(self, name: str) -> bytes:
        """The content of a file that the manifest lists, held against its digest: the bytes that are to be used.

        `load` has checked the file, but it may have been changed since.

        Raises:
            BundleError: it is not listed, no regular file, or not what the manifest says.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path / 'manifest.json'} lists no {name}: {remake(name)}")
        return read_checked(self.path, name, self.manifest.files[name])

    def graph(self, graph: GraphName, precision: str = "fp32") -> bytes:
        """The content of a graph, checked as by `read`; it holds its weights itself.

        Raises:
            BundleError: the bundle does not have this precision, or the file is not what the manifest says, or no ONNX
                file, or takes weights from another one.
        """
        file = self.onnx(graph, precision)
        content = self.read(f"onnx/{precision}/{graph}.onnx")
        require_own_weights(content, file)
        return content

    def decoder_scores(self) -> dict[str, npt.NDArray[np.float32]]:
        """The scores of the CRF: `start_transitions`, `end_transitions` [labels] and `transitions` [labels, labels].

        Raises:
            BundleError: decoder.npz is damaged or of other labels.
        """
        count = len(self.labels)
        shapes = {"start_transitions": (count,), "end_transitions": (count,), "transitions": (count, count)}
        return self._finite("decoder.npz", shapes)

    def blank_prefix(self) -> npt.NDArray[np.float32]:
        """The prefix of the blank picture that stands for a missing one, float32 [layers, 2, prefix_length * hidden].

        Raises:
            BundleError: blank.npz is damaged or of another model.
        """
        return self._finite("blank.npz", {"prefix": self.sizes.prefix_shape})["prefix"]

    def _finite(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
        arrays = read_arrays(self.read(name), self.path / name, shapes)
        for what, array in arrays.items():
            if not np.isfinite(array).all():
                raise BundleError(f"{self.path / name}: {what} contains NaN or infinity; {remake(name)}")
        return arrays


def read_manifest(folder: Path) -> Manifest:
    """What a bundle says of itself; its files are not looked at.

    Raises:
        BundleError: no bundle, or another schema.
    """
    file = folder / "manifest.json"
    try:
        content = read_regular(folder, file.name, _MANIFEST_BYTES)
    except BundleError as error:
        raise BundleError(f"{folder} is not a bundle: {error}") from error
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not JSON: the bundle is damaged ({error})") from error
    try:
        return Manifest.from_dict(values)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not a manifest that this version reads: {error}") from error


def require_pictures(manifest: Manifest) -> None:
    """Hold a bundle's model against what a grounder is for.

    Raises:
        BundleError: it reads no pictures.
    """
    if not manifest.sizes.pictures:
        raise BundleError(f"the model reads no pictures (variant {manifest.variant}): a grounder finds nothing for it")


def _check_files(path: Path, required: Sequence[str], files: Mapping[str, FileDigest]) -> None:
    unlisted = [name for name in required if name not in files]
    if unlisted:
        cure = next((each for each in map(remake, unlisted) if each != ADD_AGAIN), ADD_AGAIN)
        raise BundleError(f"{path / 'manifest.json'} lists no {', '.join(unlisted)}: {cure}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        list(pool.map(partial(check_file, path), files, files.values()))
