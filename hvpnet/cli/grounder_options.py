"""Options of the verbs that put a grounder into a bundle."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvpnet.cli.options import VerbOptions, option
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.errors import brief

_KINDS = ("text", "fixed")


def grounder_option(*, required: bool) -> Any:  # noqa: ANN401  any field's type
    """`--grounder`: the checkpoint of a grounder."""
    return option(
        "a model that finds objects where none are given: the checkpoint FILE of a published one-stage grounder, or the"
        " FOLDER of an OWL-ViT of transformers",
        metavar="FILE|FOLDER",
        required=required,
    )


def grounder_tokenizer_option() -> Any:  # noqa: ANN401
    """`--grounder-tokenizer`: what cuts the grounder's queries into pieces."""
    return option(
        "folder of the BERT that a one-stage grounder was trained on, or of an OWL-ViT's tokenizer (default: the"
        " OWL-ViT's own folder)"
    )


def _queries(value: str) -> str:
    words = [word.strip() for word in value.split(",")]
    if len(words) > 1 or words[0] not in _KINDS:
        if any(word.lower() in _KINDS for word in words):
            raise argparse.ArgumentTypeError(f"{brief(value)}: text and fixed stand alone, in small letters")
        if not all(words) or len(set(words)) < len(words):
            raise argparse.ArgumentTypeError(f"{brief(value)}: give words separated by commas, each of them once")
    return ",".join(words)


@dataclass(frozen=True, kw_only=True)
class GrounderOptions(VerbOptions):
    """What a grounder is made of and asked, beside its checkpoint."""

    grounder_tokenizer: Path | None = grounder_tokenizer_option()
    queries: str | None = option(
        "what the grounder looks for: text, what each text names (default for relations); fixed, the four entity types"
        " (default for entities); or words of your own, comma-separated",
        type=_queries,
    )

    def words(self, task: Task) -> tuple[str, ...] | None:
        """The fixed queries; None for queries made of each text."""
        from hvpnet_export.grounder import ENTITY_TYPES

        queries = self.queries or ("fixed" if task == "ner" else "text")
        if queries == "text":
            return None
        return ENTITY_TYPES if queries == "fixed" else tuple(queries.split(","))
