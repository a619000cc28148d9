"""The sizes and choices that make an HVPNeT model, validated when they are made."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from hvpnet.errors import ConfigError
from hvpnet_runtime.bundle import MAX_OBJECTS, Head, Task, Variant

STAGES = 4
"""Stages of a ResNet whose outputs make the pyramid (layer1 to layer4)."""

DEFAULT_MAX_LENGTH: dict[str, int] = {"ner": 128, "re": 80}
"""Pieces per tweet, [CLS] and [SEP] included, in the published runs."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes of the text encoder; the defaults are bert-base-uncased."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        _positive(self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        _positive(self, "max_position_embeddings", "type_vocab_size")
        if not isinstance(self.layer_norm_eps, int | float) or not 0 < self.layer_norm_eps < 1:
            raise ConfigError(f"layer_norm_eps must be a small positive number, not {self.layer_norm_eps!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of a torchvision ResNet, ResNeXt or wide ResNet; the defaults are ResNet-50."""

    block: Literal["basic", "bottleneck"] = "bottleneck"
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    groups: int = 1
    width_per_group: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        _one_of("block", self.block, ("basic", "bottleneck"))
        _positive(self, "groups", "width_per_group")
        if len(self.layers) != STAGES or min(self.layers) < 1:
            raise ConfigError(f"layers must be four positive block counts, not {self.layers}")
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, 64):
            raise ConfigError("basic blocks have groups 1 and width_per_group 64")

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Output channels of layer1 to layer4."""
        expansion = 4 if self.block == "bottleneck" else 1
        return tuple(64 * 2**stage * expansion for stage in range(STAGES))


@dataclass(frozen=True)
class HVPNeTConfig:
    """A whole model.

    Attributes:
        task: `ner` (emissions and a CRF) or `re` (one relation for a marked pair).
        labels: NER labels or relations, by index.
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
    prefix_length: int = 4
    splits: int = 4
    projection_size: int = 800
    max_length: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        _one_of("task", self.task, get_args(Task))
        _one_of("variant", self.variant, get_args(Variant))
        _one_of("head", self.head, get_args(Head))
        _positive(self, "prefix_length", "splits", "projection_size", "max_length")
        names = {label for label in self.labels if isinstance(label, str)}
        if len(names) < 2 or len(names) != len(self.labels):
            raise ConfigError(f"labels must be at least two different names, not {list(self.labels)}")
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

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HVPNeTConfig":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: a key is unknown or missing, or a value is impossible.
        """
        values = dict(values)
        try:
            values["bert"] = BertConfig(**_known(BertConfig, values["bert"]))
            if values["resnet"] is not None:
                values["resnet"] = ResNetConfig(**_known(ResNetConfig, values["resnet"]))
            return cls(**_known(cls, values))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"the configuration of the model is incomplete or malformed: {error}") from error

    @classmethod
    def read(cls, path: Path) -> "HVPNeTConfig":
        """Read a configuration that `write` wrote.

        Raises:
            ConfigError: the file is not such a configuration.
        """
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable configuration: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} holds no configuration: expected a JSON object")
        return cls.from_dict(values)

    def write(self, path: Path) -> None:
        """Write the configuration as JSON."""
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", "utf-8")


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name} must be a positive whole number, not {value!r}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(values) - {field.name for field in fields(cls)})
    if unknown:
        raise ConfigError(f"unknown configuration keys: {', '.join(unknown)}")
    return values
