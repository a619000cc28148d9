"""What a training run is: a TOML file, checked as a whole before anything heavy is loaded."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from hvpnet.data.published import OnBadImage
from hvpnet.errors import ConfigError
from hvpnet.modeling.config import BertConfig, Head, ResNetConfig, Variant
from hvpnet.training.toml_tables import parse_table, write_table

RESNET_50 = ResNetConfig()


@dataclass(frozen=True)
class DataOptions:
    """The table `[data]`.

    Attributes:
        root: the data set's folder, as `hvpnet.data.load_split` reads it; the task is read off it.
        on_bad_image: what to do with a whole picture that cannot be opened: `error`, or `substitute` (inf.png).
    """

    root: Path
    on_bad_image: OnBadImage = "error"


@dataclass(frozen=True)
class BertSizes:
    """The table `[model.bert]`: a text encoder to train from scratch; its vocabulary is the tokenizer's."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512

    def __post_init__(self) -> None:
        self.config(vocab_size=1)  # checks the sizes
        _require(self.max_position_embeddings >= 1, "max_position_embeddings", "at least 1", self)

    def config(self, vocab_size: int) -> BertConfig:
        """The configuration of such an encoder with that vocabulary."""
        return BertConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_position_embeddings,
        )


@dataclass(frozen=True)
class ModelOptions:
    """The table `[model]`; what is left out is as published.

    Attributes:
        tokenizer: a folder with the vocabulary of a BERT, `vocab.txt` or `tokenizer.json`.
        bert: a folder with the `config.json` and the weights of a BERT, or the sizes of one to train from scratch.
        resnet: sizes of the picture encoder; `text_only` has none and does not read this.
        resnet_weights: a state dict of torchvision's (.pth). Without one the ResNet is random, and only its batch norms
            are fitted to the training pictures.
        variant: one of the paper's ablations.
        head: relations only: what is classified.
        projection_size: width between the two linear layers of the projection.
        prefix_length: prefix positions per picture.
        max_length: pieces per tweet; by default 128 for entities and 80 for relations.
    """

    tokenizer: Path
    bert: Path | BertSizes
    resnet: ResNetConfig = RESNET_50
    resnet_weights: Path | None = None
    variant: Variant = "full"
    head: Head = "markers"
    projection_size: int = 800
    prefix_length: int = 4
    max_length: int | None = None


@dataclass(frozen=True)
class RunOptions:
    """The table `[train]`; the defaults are those of the published code.

    Attributes:
        out: the folder of checkpoint and log; a run that was cut off goes on from there.
        epochs: passes over the training split; 30 for entities and 15 for relations as published.
        batch_size: tweets per step; 8 and 16 as published.
        lr: peak learning rate of BERT and of the prefix modules.
        head_lr: peak learning rate of CRF and classifier. The published code makes this group for entities but leaves
            it out of its optimiser, so that they stay as they began: 0 does the same.
        weight_decay: of all trained weights, biases included.
        warmup_ratio: part of all steps in which the learning rates rise to their peaks, before they fall to 0; 0.01
            and 0.06 as published.
        eval_begin_epoch: first epoch, from 1, that is scored on the dev split; the best of those is kept.
        seed: of initialisation, dropout and the order of tweets.
    """

    out: Path
    epochs: int
    batch_size: int
    lr: float = 3e-5
    head_lr: float = 5e-2
    weight_decay: float = 1e-2
    warmup_ratio: float = 0.01
    eval_begin_epoch: int = 1
    seed: int = 1234

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            _require(getattr(self, name) >= 1, name, "at least 1", self)
        for name in ("head_lr", "weight_decay", "seed"):
            _require(getattr(self, name) >= 0, name, "at least 0", self)
        _require(self.lr > 0, "lr", "above 0", self)
        _require(0 <= self.warmup_ratio < 1, "warmup_ratio", "in [0, 1)", self)
        _require(1 <= self.eval_begin_epoch <= self.epochs, "eval_begin_epoch", f"in 1 to {self.epochs}", self)


@dataclass(frozen=True)
class TrainingConfig:
    """A whole training run."""

    data: DataOptions
    model: ModelOptions
    train: RunOptions

    @classmethod
    def read(cls, path: Path | str) -> "TrainingConfig":
        """Reads a TOML file; its paths are relative to its folder.

        Raises:
            ConfigError: the file cannot be read, a key is unknown or missing, or a value is impossible.
        """
        path = Path(path)
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable TOML file: {error}") from error
        try:
            return parse_table(cls, tables, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    def to_toml(self) -> str:
        """The text of a file that `read` makes this configuration of."""
        return write_table(self)


def _require(condition: bool, name: str, wanted: str, options: object) -> None:  # noqa: FBT001
    if not condition:
        raise ConfigError(f"{name} must be {wanted}, not {getattr(options, name)!r}")
