"""Read a bundle: the manifest's schema, the presence of every file and its digest, before anything is parsed."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from hvpnet_runtime.errors import BundleError

SCHEMA_VERSION = 1
"""The newest manifest schema this runtime reads."""

Task: TypeAlias = Literal["ner", "re"]


@dataclass(frozen=True)
class PictureSpec:
    """How a bundle wants its pictures.

    Attributes:
        resize: pixels of the shorter side after resizing.
        crop: side of the square cut out of the middle, at most `resize`.
        mean: per channel (red, green, blue), of values in [0, 1].
        std: per channel, of values in [0, 1].
        max_pixels: a picture with more is refused before it is decoded, and so is one so elongated that it would have
            more after resizing.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model that the runtime needs to shape its inputs."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    prefix_length: int
    pictures: int

    @property
    def prefix_shape(self) -> tuple[int, int, int]:
        """Shape of one picture's prefix: [layers, 2, prefix_length * hidden]."""
        return self.layers, 2, self.prefix_length * self.hidden


@dataclass(frozen=True)
class Bundle:
    """A checked bundle folder.

    Attributes:
        path: the folder.
        task: `ner` or `re`.
        variant: which ablation of the paper the checkpoint is.
        head: `markers` or `cls` for relations, None for entities.
        labels: NER labels or relations by index.
        sizes: see `Sizes`.
        pictures: how pictures become pixels.
        max_length: pieces per tweet, [CLS] and [SEP] included.
        max_objects: object crops read per tweet.
        precisions: folders under onnx/.
        manifest: the whole manifest, for display.
    """

    path: Path
    task: Task
    variant: str
    head: str | None
    labels: tuple[str, ...]
    sizes: Sizes
    pictures: PictureSpec
    max_length: int
    max_objects: int
    precisions: tuple[str, ...]
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> "Bundle":
        """Read and check a bundle.

        Raises:
            BundleError: no bundle, a newer schema, or a file that is missing, truncated or edited (it is named).
        """
        path = Path(path)
        manifest = _read_manifest(path)
        try:
            bundle = cls(
                path=path,
                task=cast("Task", _one_of(manifest, "task", ("ner", "re"))),
                variant=str(manifest["variant"]),
                head=_one_of(manifest, "head", ("markers", "cls", None)),
                labels=tuple(manifest["labels"]),
                sizes=Sizes(**manifest["sizes"]),
                pictures=PictureSpec(
                    resize=manifest["preprocessing"]["resize"],
                    crop=manifest["preprocessing"]["crop"],
                    mean=tuple(manifest["preprocessing"]["mean"]),
                    std=tuple(manifest["preprocessing"]["std"]),
                    max_pixels=manifest["limits"]["max_pixels"],
                ),
                max_length=manifest["limits"]["max_length"],
                max_objects=manifest["limits"]["max_objects"],
                precisions=tuple(manifest["precision"]),
                manifest=manifest,
            )
            _check_files(path, bundle.required_files, manifest["files"])
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path / 'manifest.json'} is not a bundle's manifest: {error!r}") from error
        return bundle

    @property
    def required_files(self) -> tuple[str, ...]:
        """What a bundle of this task and variant must hold, as paths inside it."""
        graphs = ("vision.onnx", "text.onnx") if self.sizes.pictures else ("text.onnx",)
        decoder = ("decoder.npz",) if self.task == "ner" else ()
        return ("tokenizer.json", *decoder, *(f"onnx/{name}/{graph}" for name in self.precisions for graph in graphs))

    def onnx(self, graph: Literal["vision", "text"], precision: str = "fp32") -> Path:
        """Path of a graph.

        Raises:
            BundleError: the bundle does not have this precision.
        """
        if precision not in self.precisions:
            raise BundleError(f"{self.path} has no {precision} graphs, only {', '.join(self.precisions)}")
        return self.path / "onnx" / precision / f"{graph}.onnx"

    def prefer(self, *precisions: str, wanted: str | None = None) -> str:
        """The wanted one of the precisions that a backend runs, or else the first of them that the bundle has.

        Raises:
            BundleError: the backend does not run what is wanted, or the bundle has none of them.
        """
        if wanted is not None:
            if wanted not in precisions:
                raise BundleError(f"{wanted} graphs do not run on this backend: choose {' or '.join(precisions)}")
            precisions = (wanted,)
        for precision in precisions:
            if precision in self.precisions:
                return precision
        raise BundleError(f"{self.path} has no {' or '.join(precisions)} graphs, only {', '.join(self.precisions)}")


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BundleError(f"{path} is not a bundle: {file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BundleError(f"{file} is not JSON: the bundle is damaged ({error})") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{file} is not a bundle's manifest: it has no schema_version")
    if version != SCHEMA_VERSION:
        cure = "upgrade hvpnet" if version > SCHEMA_VERSION else "export the checkpoint again"
        raise BundleError(f"{path} has schema {version}, this runtime reads schema {SCHEMA_VERSION}: {cure}")
    return dict(manifest)


def _one_of(manifest: Mapping[str, Any], name: str, choices: tuple[str | None, ...]) -> str | None:
    value: str | None = manifest[name]
    if value not in choices:
        raise ValueError(f"{name} is {value!r}")
    return value


def _check_files(path: Path, required: tuple[str, ...], files: Mapping[str, Mapping[str, Any]]) -> None:
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
        if size != facts["bytes"]:
            raise BundleError(f"{file} has {size} bytes, the manifest says {facts['bytes']}: copy the bundle again")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the GIL
        digests = pool.map(sha256, [path / name for name in files])
        for (name, facts), digest in zip(files.items(), digests, strict=True):
            if digest != facts["sha256"]:
                raise BundleError(f"{path / name} was changed after the export: its sha256 is not the manifest's")


def sha256(file: Path) -> str:
    """Digest of a file, as hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
