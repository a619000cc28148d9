"""The manifest of a bundle: its type, and how it is read from and written as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from hvpnet_runtime.bundle.from_json import record_from_json
from hvpnet_runtime.bundle.grounder_spec import GrounderSpec, check_grounder
from hvpnet_runtime.bundle.precision import Precision, export_command

SCHEMA_VERSION = 2
"""The manifest schema that this version reads and writes."""

Task: TypeAlias = Literal["ner", "re"]
Variant: TypeAlias = Literal["full", "flat", "1t3", "only_obj", "text_only"]
Head: TypeAlias = Literal["markers", "cls"]

MAX_OBJECTS = 3
"""Object crops read per tweet (published code)."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model.

    Attributes:
        hidden: width of BERT's hidden states.
        layers: BERT layers, each of which reads a prefix.
        heads: attention heads of a layer.
        vocabulary: pieces of the tokeniser.
        prefix_length: prefix positions that one picture adds to a layer.
        pictures: pictures of a tweet that the model reads, whole picture first; 0 for `text_only`.
    """

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
class PictureSpec:
    """How pictures become pixels; the defaults are the published transforms.

    Attributes:
        resize: pixels of the shorter side after resizing.
        crop: side of the square cut out of the middle, at most `resize`.
        mean: per channel (red, green, blue), of values in [0, 1]; the vision graph normalises with it.
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
class Limits:
    """What the model reads of a tweet.

    Attributes:
        max_length: pieces of the text, [CLS] and [SEP] included.
        max_objects: object crops.
    """

    max_length: int
    max_objects: int = MAX_OBJECTS


@dataclass(frozen=True)
class FileDigest:
    """What a file must be: its sha256 as hexadecimal digits, and its size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself in manifest.json.

    Attributes:
        task: `ner` or `re`.
        variant: which ablation of the paper the checkpoint is.
        head: of relations: `markers` or `cls`; None for entities.
        labels: NER labels or relations by index.
        sizes: see `Sizes`.
        architecture: BERT's and ResNet's own configurations, as the checkpoint has them.
        preprocessing: how pictures become pixels.
        limits: what the model reads of a tweet.
        precision: of the graphs, the folders under onnx/; one at least.
        calibration: how INT8 ranges were taken; None without INT8 graphs.
        produced_by: versions of the packages that made the bundle.
        parity: by precision, the report of the comparison with eager PyTorch.
        files: what every file must be, by its path in the bundle.
        grounder: what finds objects in pictures; None for a bundle that reads only those that are given.
    """

    task: Task
    variant: Variant
    head: Head | None
    labels: tuple[str, ...]
    sizes: Sizes
    architecture: Mapping[str, Any]
    preprocessing: PictureSpec
    limits: Limits
    precision: tuple[Precision, ...]
    calibration: Mapping[str, Any] | None = None
    produced_by: Mapping[str, str] = field(default_factory=dict)
    parity: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    grounder: GrounderSpec | None = None

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON types, the schema's version first."""
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        if self.grounder is None:  # so that versions that know of no grounder read what has none
            del values["grounder"]
        return values

    @classmethod
    def from_dict(cls, values: object) -> "Manifest":
        """The inverse of `to_dict`, once it has been through JSON.

        Raises:
            ValueError: a value is missing or of another type, or the schema's version another; the message says which.
        """
        if not isinstance(values, dict) or type(version := values.get("schema_version")) is not int:
            raise ValueError("it has no schema_version")
        if version > SCHEMA_VERSION:
            raise ValueError(f"its schema is {version}, this version reads {SCHEMA_VERSION}: upgrade hvpnet")
        if version < SCHEMA_VERSION:
            raise ValueError(
                f"its schema is {version}, this version reads {SCHEMA_VERSION}: make the bundle anew with "
                f"{_export_command(values)}"
            )
        manifest = record_from_json(cls, {name: value for name, value in values.items() if name != "schema_version"})
        _check_values(manifest)
        return manifest

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def required_files(self, *, graphs: bool = True) -> tuple[str, ...]:
        """What a bundle of this task and variant must hold, as paths inside it.

        Args:
            graphs: with or without those of the model. Those of a grounder are always among them: objects are found
                where tweets are prepared.
        """
        pictures = bool(self.sizes.pictures)
        names = ("vision.onnx", "text.onnx") if pictures else ("text.onnx",)
        arrays = (*(("decoder.npz",) if self.task == "ner" else ()), *(("blank.npz",) if pictures else ()))
        onnx = [f"onnx/{precision}/{name}" for precision in self.precision for name in names] if graphs else []
        return ("tokenizer.json", *arrays, *onnx, *(self.grounder.required_files() if self.grounder else ()))


def _check_values(manifest: Manifest) -> None:
    """What no type says.

    Raises:
        ValueError: a value contradicts another, or no model can have it.
    """
    _check_sizes(manifest)
    _check_names(manifest)
    if (manifest.head is None) != (manifest.task == "ner"):
        raise ValueError(f"head is {manifest.head}, the task {manifest.task}")
    if not isinstance(manifest.architecture.get("bert"), dict):
        raise ValueError("architecture.bert is no object")  # noqa: TRY004  of the document
    for precision, report in manifest.parity.items():
        for name in ("prefix_error", "output_error", "differing", "decisions"):
            if type(report.get(name)) not in (int, float):
                raise ValueError(f"parity.{precision}.{name} is no number")
    if manifest.grounder is not None:
        if not manifest.sizes.pictures:
            raise ValueError(f"it has a grounder, and the variant {manifest.variant} reads no pictures")
        check_grounder(manifest.grounder)


def _check_sizes(manifest: Manifest) -> None:
    sizes, pictures, limits = manifest.sizes, manifest.preprocessing, manifest.limits
    counts = {f"sizes.{name}": value for name, value in asdict(sizes).items() if name != "pictures"}
    counts |= {"limits.max_length": limits.max_length, "preprocessing.max_pixels": pictures.max_pixels}
    for name, value in {**counts, "preprocessing.crop": pictures.crop}.items():
        if not 0 < value < 2**31:
            raise ValueError(f"{name} is {value}")
    if not pictures.crop <= pictures.resize < 2**15:
        raise ValueError(f"preprocessing.resize is {pictures.resize}, preprocessing.crop {pictures.crop}")
    if limits.max_objects != MAX_OBJECTS:
        raise ValueError(f"limits.max_objects is {limits.max_objects}, models read {MAX_OBJECTS}")
    read = {"text_only": 0, "only_obj": MAX_OBJECTS}.get(manifest.variant, 1 + MAX_OBJECTS)
    if sizes.pictures != read:
        raise ValueError(f"sizes.pictures is {sizes.pictures}, the variant {manifest.variant} reads {read}")


def _check_names(manifest: Manifest) -> None:
    for text in (*manifest.labels, *manifest.files):
        text.encode()  # half of a surrogate pair cannot be written, and UnicodeEncodeError is a ValueError
    for name in manifest.files:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise ValueError(f"files has {name[:60]!r}, which lies outside the bundle")


def _export_command(values: Any) -> str:  # noqa: ANN401  JSON
    """What makes a bundle of an older schema again; the checkpoint's path is in no manifest."""
    given = values.get("precision")
    precisions = [each for each in get_args(Precision) if each in given] if isinstance(given, list) else []
    whole = "hvpnet export CHECKPOINT --tokenizer DIR --out NEW_BUNDLE"
    command = export_command(precisions or ["fp32"]).replace("hvpnet export", whole)
    limits = values.get("limits")
    if isinstance(limits, dict) and type(limits.get("max_length")) is int:
        command += f" --max-length {limits['max_length']}"
    if values.get("task") == "re":  # no checkpoint of this task has the relations' names
        command += " --labels LABELS"
    if values.get("variant") == "only_obj":  # a checkpoint cannot tell it from `full`
        command += " --variant only_obj"
    return command
