"""The demo's steps, one after the other."""

import logging
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import torch

from hvpnet.data import EntityExample, Sizes, load_split, write_picture_tweets, write_tokenizer
from hvpnet.demo.accuracy import accuracy
from hvpnet.demo.latency import measure
from hvpnet.demo.report import Figures, write_report
from hvpnet.errors import DataError
from hvpnet.evaluation.eager import predict
from hvpnet.evaluation.scoring import Prediction
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training.config import TrainingConfig
from hvpnet.training.run import train
from hvpnet_export import compare, export_bundle
from hvpnet_export.parity_cases import example_cases
from hvpnet_runtime import EntityResult, Pipeline, Tweet
from hvpnet_runtime.types import Progress

logger = logging.getLogger(__name__)

SIZES = Sizes(train=800, dev=100, test=300)
RECIPE = Path(__file__).with_name("train.toml")
_SHOWN = 6  # tweets in the figure
_TIMED = 40  # tweets whose latency is taken


def run_demo(
    out: Path, progress: Progress, sizes: Sizes = SIZES, recipe: Path = RECIPE, *, report: Progress = logger.info
) -> Figures:
    """Train, export, verify, predict and report into a folder.

    Args:
        out: new, or of a demo that was cut off, which goes on: what is complete is not made again.
        progress: is told each step as it begins.
        sizes: tweets to draw.
        recipe: the training run, with the paths of the demo's own train.toml.
        report: is told the loss and the dev F1 of every epoch.

    Returns:
        What `out / "report.md"` and `out / "report.png"` show.

    Raises:
        DataError: the folder holds something else.
    """
    config = _prepare(out, progress, sizes, recipe)
    progress("training with pictures")
    full = train(config, report=report).checkpoint
    progress("training without pictures (variant text_only)")
    blind = train(_text_only(config), report=report).checkpoint
    bundle = out / "bundle"
    if not bundle.exists():
        export_bundle(load_checkpoint(full), load_tokenizer(full, "ner"), bundle, progress, precisions=("fp32", "fp16"))
    test = load_split(config.data.root, "test").examples
    examples = [example for example in test if isinstance(example, EntityExample)]
    figures, shown = _evaluate(full, blind, bundle, examples, progress)
    write_report(figures, shown, out)
    return figures


def _prepare(out: Path, progress: Progress, sizes: Sizes, recipe: Path) -> TrainingConfig:
    """Data, tokeniser and the configuration of the training, which is written last: it says the rest is complete."""
    config = out / "train.toml"
    if not config.exists():
        progress("drawing picture-tweets")
        try:
            write_picture_tweets(out / "data", sizes=sizes)
        except DataError as error:
            raise DataError(f"{out} holds an unfinished demo or something else: remove it or choose another") from error
        write_tokenizer(out / "tokenizer")
        copyfile(recipe, config)
    return TrainingConfig.read(config)


def _text_only(config: TrainingConfig) -> TrainingConfig:
    run = replace(config.train, out=config.train.out.with_name("text_only"))
    return replace(config, model=replace(config.model, variant="text_only"), train=run)


def _evaluate(
    full: Path, blind: Path, bundle: Path, examples: list[EntityExample], progress: Progress
) -> tuple[Figures, list[tuple[Tweet, EntityResult]]]:
    """What the report shows: figures, and tweets with what the runtime said of them."""
    model, tokenizer = load_checkpoint(full), load_tokenizer(full, "ner")
    tweets = [example.tweet for example in examples]
    withheld = [replace(each, tweet=replace(each.tweet, image=None, objects=())) for each in examples]
    progress("predicting the held-out tweets")
    with Pipeline.load(bundle) as pipeline:
        results = _entities(pipeline, tweets)
        shown = _shown(pipeline, tweets, results)
        tags: dict[str, list[Prediction]] = {
            "runtime": [result.tags for result in results],
            "eager": predict(model, tokenizer, examples),
            "pictures_withheld": predict(model, tokenizer, withheld),
            "trained_without_pictures": predict(load_checkpoint(blind), tokenizer, examples),
        }
        progress("timing eager PyTorch against the runtime")
        latencies = measure(model, tokenizer, pipeline, tweets[:_TIMED])
        backend = pipeline.backend.name
    progress("holding the FP16 graphs against eager PyTorch")
    requests = example_cases(model.config, tokenizer, examples)
    runtime, eager, *_ = tags.values()
    figures = Figures(
        tweets=len(tweets),
        accuracy={name: accuracy(model.config, tokenizer, examples, predicted) for name, predicted in tags.items()},
        differing_tweets=sum(mine != theirs for mine, theirs in zip(runtime, eager, strict=True)),
        fp16=compare(model, bundle, "fp16", requests).require().summary,
        latencies=latencies,
        backend=backend,
        threads=torch.get_num_threads(),
    )
    return figures, shown


def _entities(pipeline: Pipeline, tweets: list[Tweet]) -> list[EntityResult]:
    return [result for result in pipeline(tweets) if isinstance(result, EntityResult)]


def _shown(pipeline: Pipeline, tweets: list[Tweet], results: list[EntityResult]) -> list[tuple[Tweet, EntityResult]]:
    """The first tweets with entities; their objects are found, not given, once the bundle has been given a grounder."""
    shown = [(tweet, result) for tweet, result in zip(tweets, results, strict=True) if result.entities][:_SHOWN]
    if pipeline.finder is None:
        return shown
    bare = [replace(tweet, objects=None) for tweet, _ in shown]
    return list(zip(bare, _entities(pipeline, bare), strict=True))
