"""Grounders: models that find in a picture what words name."""

from pathlib import Path

from hvpnet.errors import CheckpointError, ConfigError
from hvpnet.modeling.grounding.base import Grounder
from hvpnet.modeling.grounding.one_stage_checkpoint import load_one_stage

__all__ = ["Grounder", "load_grounder"]


def load_grounder(path: Path, tokenizer: Path | None = None) -> Grounder:
    """Load a grounder in evaluation mode.

    Args:
        path: a checkpoint file of the published one-stage grounder.
        tokenizer: folder of the BERT that a one-stage grounder was trained on.

    Raises:
        CheckpointError: the file cannot be read, or is no such checkpoint; see `load_one_stage`.
        ConfigError: no tokeniser was given, or it is of another vocabulary.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the checkpoint's file")
    if tokenizer is None:
        raise ConfigError(
            f"{path} has no tokeniser: give --grounder-tokenizer (in Python, tokenizer=...), the folder of the BERT it"
            " was trained on"
        )
    return load_one_stage(path, tokenizer)
