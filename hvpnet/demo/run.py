"""The demo's steps, one after the other."""

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from hvpnet.data import EntityExample, Sizes, load_split, write_picture_tweets, write_tokenizer
from hvpnet.demo.accuracy import accuracy, without_pictures
from hvpnet.demo.latency import measure
from hvpnet.demo.report import Example, Figures, write_report
from hvpnet.errors import DataError
from hvpnet.evaluation.eager import predict
from hvpnet.evaluation.scoring import Prediction
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training.config import TrainingConfig
from hvpnet.training.run import train
from hvpnet_export import compare, export_bundle
from hvpnet_export.parity_cases import example_requests
from hvpnet_runtime import EntityResult, Pipeline

Progress = Callable[[str], None]

_SIZES = Sizes(train=800, dev=100, test=300)
_SHOWN = 6  # tweets in the figure
_TIMED = 40  # tweets whose latency is taken


def run_demo(out: Path, progress: Progress) -> Figures:
    """Train, export, verify, predict and report into a folder.

    Args:
        out: new, or of a demo that was cut off, which goes on: what is complete is not made again.
        progress: is told each step as it begins.

    Returns:
        What `out / "report.md"` and `out / "report.png"` show.

    Raises:
        DataError: the folder holds something else.
    """
    config = _prepare(out, progress)
    progress("training with pictures")
    full = train(config).checkpoint
    progress("training without pictures (variant text_only)")
    blind = train(_text_only(config)).checkpoint
    bundle = out / "bundle"
    if not bundle.exists():
        model = load_checkpoint(full)
        export_bundle(model, load_tokenizer(full, model.config.task), bundle, progress, precisions=("fp32", "fp16"))
    test = load_split(config.data.root, "test").examples
    figures, shown = _evaluate(
        full, blind, bundle, [each for each in test if isinstance(each, EntityExample)], progress
    )
    write_report(figures, shown, out)
    return figures


def _prepare(out: Path, progress: Progress) -> TrainingConfig:
    """Data, tokeniser and the configuration of the training, which is written last: it says the rest is complete."""
    config = out / "train.toml"
    if not config.exists():
        progress("drawing picture-tweets")
        try:
            write_picture_tweets(out / "data", sizes=_SIZES)
        except DataError as error:
            raise DataError(f"{out} holds an unfinished demo or something else: remove it or choose another") from error
        write_tokenizer(out / "tokenizer")
        config.write_text(files("hvpnet.demo").joinpath("train.toml").read_text("utf-8"), "utf-8")
    return TrainingConfig.read(config)


def _text_only(config: TrainingConfig) -> TrainingConfig:
    run = replace(config.train, out=config.train.out.with_name("text_only"))
    return replace(config, model=replace(config.model, variant="text_only"), train=run)


def _evaluate(
    full: Path, blind: Path, bundle: Path, examples: list[EntityExample], progress: Progress
) -> tuple[Figures, list[Example]]:
    model, blind_model = load_checkpoint(full), load_checkpoint(blind)
    tokenizer, withheld = load_tokenizer(full, "ner"), without_pictures(examples)
    progress("predicting the held-out tweets")
    eager = predict(model, tokenizer, examples)
    with Pipeline.load(bundle) as pipeline:
        results = [result for result in pipeline([each.tweet for each in examples]) if isinstance(result, EntityResult)]
        progress("timing eager PyTorch against the runtime")
        latencies = measure(model, tokenizer, pipeline, [example.tweet for example in examples[:_TIMED]])
        backend = pipeline.backend.name
    progress("holding the FP16 graphs against eager PyTorch")
    requests = example_requests(model.config, tokenizer, examples)
    fp16 = compare(model, bundle / "onnx" / "fp16", "fp16", requests).require()
    tags: list[Prediction] = [result.tags for result in results]
    figures = Figures(
        tweets=len(examples),
        accuracy={
            "runtime, with pictures": accuracy(model, tokenizer, examples, tags),
            "eager PyTorch, with pictures": accuracy(model, tokenizer, examples, eager),
            "the same model, pictures withheld": accuracy(
                model, tokenizer, withheld, predict(model, tokenizer, withheld)
            ),
            "trained without pictures": accuracy(
                blind_model, tokenizer, examples, predict(blind_model, tokenizer, examples)
            ),
        },
        differing_tweets=sum(mine != theirs for mine, theirs in zip(eager, tags, strict=True)),
        fp16=fp16.summary,
        latencies=latencies,
        backend=backend,
        threads=torch.get_num_threads(),
    )
    shown = [Example(each.tweet, result) for each, result in zip(examples, results, strict=True) if result.entities]
    return figures, shown[:_SHOWN]
