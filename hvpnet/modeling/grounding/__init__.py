"""Grounders: models that find in a picture what words name."""

from pathlib import Path

from hvpnet.files import require_grounder
from hvpnet.modeling.grounding.base import Grounder
from hvpnet.modeling.grounding.one_stage_checkpoint import load_one_stage

__all__ = ["Grounder", "load_grounder"]


def load_grounder(path: Path, tokenizer: Path | None = None) -> Grounder:
    """Load a grounder in evaluation mode.

    Args:
        path: a checkpoint file of the published one-stage grounder, or a folder with an OWL-ViT of transformers.
        tokenizer: folder of the BERT that a one-stage grounder was trained on; for OWL-ViT that of CLIP's tokeniser, by
            default the same folder.

    Raises:
        CheckpointError: the file or folder cannot be read, or is no such checkpoint; see `load_one_stage` and
            `load_owl_vit`.
        ConfigError: no tokeniser was given or found, or it is of another vocabulary.
    """
    require_grounder(path, tokenizer)
    if tokenizer is not None and not path.is_dir():
        return load_one_stage(path, tokenizer)
    from hvpnet.modeling.grounding.owl_vit import load_owl_vit  # which imports much of transformers

    return load_owl_vit(path, tokenizer)
