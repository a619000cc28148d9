"""The two models of post-graphs, trained by the demo's recipe: what shows triples where no weights can be had."""

from dataclasses import replace
from pathlib import Path

from hvpnet.data import Sizes, write_post_graphs, write_tokenizer
from hvpnet.demo.run import RECIPE
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training.config import TrainingConfig
from hvpnet.training.run import train
from hvpnet_export import export_bundle
from hvpnet_runtime.bundle import Task
from hvpnet_runtime.types import Progress

GRAPH_SIZES = Sizes(train=700, dev=100, test=200)
EPOCHS = 24
"""Epochs of both models, of which the best on dev is kept. The demo's recipe has 8, for twice as many tweets."""

_PARTS: dict[Task, str] = {"ner": "entities", "re": "relations"}


def train_graph_models(out: Path, progress: Progress, sizes: Sizes = GRAPH_SIZES) -> tuple[Path, Path]:
    """Draws post-graphs, trains both models, and exports them.

    Args:
        out: new, or of a run that was cut off, which goes on; it gets `data`, `tokenizer`, `runs` and `bundles`.
        progress: is told each step as it begins.
        sizes: posts to draw.

    Returns:
        The bundle of entities and that of relations.

    Raises:
        DataError: the drawing was cut off: remove the folder.
    """
    tokenizer = out / "tokenizer"  # is written last: it says that the data are complete
    if not tokenizer.exists():
        progress("drawing post-graphs")
        write_post_graphs(out / "data", sizes)
        write_tokenizer(tokenizer)
    entities, relations = (_bundle(out, task, progress) for task in _PARTS)
    return entities, relations


def _bundle(out: Path, task: Task, progress: Progress) -> Path:
    part, recipe = _PARTS[task], TrainingConfig.read(RECIPE)
    config = replace(
        recipe,
        data=replace(recipe.data, root=out / "data" / part),
        model=replace(recipe.model, tokenizer=out / "tokenizer"),
        train=replace(recipe.train, out=out / "runs" / part, epochs=EPOCHS),
    )
    progress(f"training the model of {part}")
    checkpoint, bundle = train(config).checkpoint, out / "bundles" / part
    if not bundle.exists():
        bundle.parent.mkdir(exist_ok=True)
        export_bundle(load_checkpoint(checkpoint), load_tokenizer(checkpoint, task), bundle, progress)
    return bundle
