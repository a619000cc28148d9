"""The sizes and choices that make an HVPNeT model, validated when they are made."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hvpnet.errors import ConfigError
from hvpnet.files import CONFIGURATION, read_text
from hvpnet_runtime.bundle import MAX_OBJECTS, Head, Task, Variant
from hvpnet_runtime.errors import brief
from hvpnet_runtime.labels import bio_tags

STAGES = 4
"""Stages of a ResNet whose outputs make the pyramid (layer1 to layer4)."""

DEFAULT_MAX_LENGTH: dict[str, int] = {"ner": 128, "re": 80}
"""Pieces per tweet, [CLS] and [SEP] included, in the published runs."""

Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Layers: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=200)]
"""Bounds that no published model comes near; a model is made layer by layer, so that a wrong number takes for ever."""

Class = TypeVar("Class")


def explain(error: ValidationError) -> str:
    """Every dotted place with what is wrong there, in one line."""
    words = {"unexpected_keyword_argument": "unknown key", "missing": "missing", "dataclass_type": "expected a table"}
    problems = []
    for each in error.errors(include_url=False):
        message = words.get(each["type"], each["msg"]).removeprefix("Value error, ")
        given = f", not {brief(each['input'])}" if message.startswith("Input should") else ""
        problems.append(f"{'.'.join(map(str, each['loc']))}: {message}{given}".removeprefix(": "))
    return "; ".join(problems)


@dataclass_transform(frozen_default=True)
def validated(cls: type[Class]) -> type[Class]:
    """Makes a frozen dataclass that refuses impossible values and unknown keys with a `ConfigError`."""
    options = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: Any = pydantic.dataclasses.dataclass(cls, frozen=True, config=options)
    initialise = made.__init__

    @wraps(initialise)
    def init(*arguments: object, **values: object) -> None:
        try:
            initialise(*arguments, **values)
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    made.__init__ = init
    return made  # type: ignore[no-any-return]


@validated
class BertConfig:
    """Sizes of the text encoder; the defaults are bert-base-uncased."""

    vocab_size: Count = 30522
    hidden_size: Count = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Count = 12
    intermediate_size: Count = 3072
    max_position_embeddings: Count = 512
    type_vocab_size: Count = 2
    hidden_act: str = "gelu"
    layer_norm_eps: Annotated[float, Field(strict=True, gt=0, lt=1)] = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )


@validated
class ResNetConfig:
    """Sizes of a torchvision ResNet, ResNeXt or wide ResNet; the defaults are ResNet-50."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    layers: tuple[Layers, Layers, Layers, Layers] = (3, 4, 6, 3)
    groups: Count = 1
    width_per_group: Count = 64

    def __post_init__(self) -> None:
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ConfigError("basic blocks have groups 1 and width_per_group 64")

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Output channels of layer1 to layer4."""
        expansion = 4 if self.block == "bottleneck" else 1
        return tuple(64 * 2**stage * expansion for stage in range(STAGES))


@validated
class HVPNeTConfig:
    """A whole model.

    Attributes:
        task: `ner` (emissions and a CRF) or `re` (one relation for a marked pair).
        labels: NER labels (see `hvpnet_runtime.labels`) or relations, by index.
        bert: the text encoder.
        resnet: the picture encoder; None exactly when variant is `text_only`.
        variant: the paper's ablations (section 4.4): `full`; `flat`, only the last ResNet stage; `1t3`, stage i feeds
            three consecutive BERT layers, without gates; `only_obj`, without the whole picture; `text_only`.
        head: relations only: `markers` classifies the hidden states at <s> and <o> (published code), `cls` the one at
            [CLS] (paper).
        prefix_length: prefix positions that one picture adds to every layer.
        splits: blocks of key/value pairs that the gates weigh.
        projection_size: width between the two linear layers of the projection.
        max_length: pieces per tweet, [CLS] and [SEP] included.
    """

    task: Task
    labels: tuple[str, ...]
    bert: BertConfig
    resnet: ResNetConfig | None
    variant: Variant = "full"
    head: Head = "markers"
    prefix_length: Count = 4
    splits: Count = 4
    projection_size: Count = 800
    max_length: Count = 128

    def __post_init__(self) -> None:
        if len(set(self.labels)) < max(2, len(self.labels)):
            raise ConfigError(f"labels must be at least two different names, not {brief(list(self.labels))}")
        if self.task == "ner":
            _check_bio(self.labels)
        if (self.resnet is None) != (self.variant == "text_only"):
            raise ConfigError("resnet must be given for every variant but text_only, and only then")
        if not 3 <= self.max_length <= self.bert.max_position_embeddings:
            raise ConfigError(
                f"max_length {self.max_length} is not between 3 and the {self.bert.max_position_embeddings} positions"
                " of the text encoder"
            )
        for channels in self.projected_channels:
            if channels * 4 % self.prefix_length:
                raise ConfigError(
                    f"prefix_length {self.prefix_length} does not divide the {channels * 4} features of a picture"
                )

    @property
    def pictures(self) -> int:
        """Pictures per tweet that the text encoder sees: the whole one, then the objects."""
        return {"text_only": 0, "only_obj": MAX_OBJECTS}.get(self.variant, 1 + MAX_OBJECTS)

    @property
    def feature_channels(self) -> int:
        """Channels of the pooled pyramid, each 2 x 2."""
        return sum(self.projected_channels)

    @property
    def projected_channels(self) -> tuple[int, ...]:
        """Channels that each projection reads: all at once, or for `1t3` those of one stage."""
        if self.resnet is None:
            return ()
        channels = self.resnet.stage_channels
        return {"1t3": channels, "flat": channels[-1:]}.get(self.variant, (sum(channels),))

    @classmethod
    def read(cls, path: Path) -> "HVPNeTConfig":
        """Read a configuration that `write` wrote.

        Raises:
            ConfigError: the file is not such a configuration.
        """
        try:
            return TypeAdapter(cls).validate_json(read_text(path, CONFIGURATION))
        except (OSError, ValueError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else error
            raise ConfigError(f"{path} is not a readable configuration: {reason}") from error

    def write(self, path: Path) -> None:
        """Write the configuration as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


def _check_bio(labels: Sequence[str]) -> None:
    try:
        bio_tags(labels)
    except ValueError as error:
        raise ConfigError(f"labels: {error}") from error
