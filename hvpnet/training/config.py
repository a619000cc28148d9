"""What a training run is: a TOML file, checked as a whole before anything heavy is loaded."""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from hvpnet.errors import ConfigError
from hvpnet.files import CONFIGURATION, read_text
from hvpnet.modeling.config import BertConfig, Count, Layers, ResNetConfig, explain, validated
from hvpnet_runtime.bundle import Head, Variant
from hvpnet_runtime.errors import brief
from hvpnet_runtime.preprocessing.pictures import OnBadImage

RESNET_50 = ResNetConfig()


def _absolute(value: object, info: ValidationInfo) -> Path:
    """An absolute path; a relative one counts from the folder of the file that is read."""
    if isinstance(value, str | Path) and value:
        return Path(info.context or "", value).resolve()
    raise ValueError(f"expected a path, not {brief(value)}")


def _encoder(value: object, info: ValidationInfo) -> object:
    """The sizes of an encoder or its folder; chosen here, as a union would put both names into an error's place."""
    if isinstance(value, dict):
        return TypeAdapter(BertSizes).validate_python(value)
    return value if isinstance(value, BertSizes) else _absolute(value, info)


AbsolutePath: TypeAlias = Annotated[Path, BeforeValidator(_absolute)]
Rate: TypeAlias = Annotated[float, Field(strict=True, ge=0)]


@validated
class DataOptions:
    """The table `[data]`.

    Attributes:
        root: the data set's folder, as `hvpnet.data.load_split` reads it; the task is read off it.
        on_bad_image: what to do with a whole picture that cannot be opened: `error`, or `substitute` (inf.png).
    """

    root: AbsolutePath
    on_bad_image: OnBadImage = "error"


@validated
class BertSizes:
    """The table `[model.bert]`: a text encoder to train from scratch; its vocabulary is the tokenizer's."""

    hidden_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count = 512

    def __post_init__(self) -> None:
        self.config(vocab_size=1)  # checks how the sizes go together

    def config(self, vocab_size: int) -> BertConfig:
        """The configuration of such an encoder with that vocabulary."""
        return BertConfig(vocab_size=vocab_size, **asdict(self))


@validated
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

    tokenizer: AbsolutePath
    bert: Annotated[Path | BertSizes, BeforeValidator(_encoder)]
    resnet: ResNetConfig = RESNET_50
    resnet_weights: AbsolutePath | None = None
    variant: Variant = "full"
    head: Head = "markers"
    projection_size: Count = 800
    prefix_length: Count = 4
    max_length: Count | None = None


@validated
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

    out: AbsolutePath
    epochs: Count
    batch_size: Count
    lr: Annotated[Rate, Field(gt=0)] = 3e-5
    head_lr: Rate = 5e-2
    weight_decay: Rate = 1e-2
    warmup_ratio: Annotated[Rate, Field(lt=1)] = 0.01
    eval_begin_epoch: Count = 1
    seed: Annotated[int, Field(strict=True, ge=0)] = 1234

    def __post_init__(self) -> None:
        if self.eval_begin_epoch > self.epochs:
            raise ConfigError(f"eval_begin_epoch {self.eval_begin_epoch} is beyond the {self.epochs} epochs")


@validated
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
            tables = tomllib.loads(read_text(path, CONFIGURATION))
            return TypeAdapter(cls).validate_python(tables, context=path.parent)
        except ValidationError as error:
            raise ConfigError(f"{path}: {explain(error)}") from error
        except RecursionError as error:
            raise ConfigError(f"{path} is not a readable TOML file: it is nested too deep") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} is not a readable TOML file: {error}") from error

    def to_toml(self) -> str:
        """The text of a file that `read` makes this configuration of."""
        return "".join(_lines(TypeAdapter(type(self)).dump_python(self, mode="json", exclude_none=True)))


def _lines(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A line for every value, its key dotted: JSON writes strings, numbers and lists as TOML does."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key} = {json.dumps(value, ensure_ascii=False)}\n"
