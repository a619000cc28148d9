"""Score a bundle on a data set: entity F1 by seqeval, or relation micro-F1 without the none class."""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from hvpnet.cli.options import add_backend, add_json, add_pictures, add_precision, progress, show
from hvpnet.data import Split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.errors import DataError
from hvpnet.scoring import Prediction, score_entities, score_relations
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preparation import OnBadImage
from hvpnet_runtime.types import EntityResult, Tweet

BATCH_SIZE = 32


@dataclass(frozen=True)
class Options:
    """What `hvpnet evaluate` was asked to do."""

    bundle: Path
    data: Path
    split: SplitName
    backend: str
    precision: str | None
    without_pictures: bool
    on_bad_image: OnBadImage
    json: bool

    @classmethod
    def parse(cls, parsed: argparse.Namespace) -> Self:
        """From the parsed command line."""
        return cls(**{name: getattr(parsed, name) for name in cls.__dataclass_fields__})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of Twitter-2015/2017, MNRE or picture-tweets")
    parser.add_argument("--split", default="test", choices=get_args(SplitName))
    parser.add_argument("--without-pictures", action="store_true", help="withhold every picture: what do they add?")
    add_backend(parser)
    add_precision(parser)
    add_pictures(parser)
    add_json(parser)


def run(options: Options) -> int:
    """Score and show."""
    split = load_split(options.data, options.split, options.on_bad_image)
    with Pipeline.load(options.bundle, options.backend, precision=options.precision) as pipeline:
        progress(f"scoring {len(split.examples)} tweets on {pipeline.backend.name}, {pipeline.backend.precision}")
        scores = score(pipeline, split, with_pictures=not options.without_pictures)
    show({"split": options.split, "tweets": len(split.examples), **scores}, as_json=options.json)
    return 0


def score(pipeline: Pipeline, split: Split, *, with_pictures: bool = True) -> dict[str, Any]:
    """The published scores of a pipeline on a split.

    As published, words without a prediction (beyond the piece budget, or without a piece) are left out of gold and
    prediction alike.

    Raises:
        DataError: the split is for the other task, has a relation that the bundle does not know, or has no pictures
            although the bundle reads them.
    """
    bundle = pipeline.bundle
    if split.task != bundle.task:
        raise DataError(f"the data are for task {split.task}, the bundle is for {bundle.task}")
    if bundle.sizes.pictures and with_pictures and not split.has_pictures:
        raise DataError("the data have no pictures and the bundle reads them: say --without-pictures to score it so")
    predictions: list[Prediction] = []
    seen: list[tuple[bool, ...]] = []
    for start in range(0, len(split.examples), BATCH_SIZE):
        examples = split.examples[start : start + BATCH_SIZE]
        batch = [pipeline.prepare(_tweet(example.tweet, with_pictures=with_pictures)) for example in examples]
        results = pipeline.run(batch)
        predictions += [result.tags if isinstance(result, EntityResult) else result.relation for result in results]
        seen += [prepared.predicted_words for prepared in batch]
    if bundle.task == "ner":
        return asdict(score_entities(split.examples, predictions, seen))
    return asdict(score_relations(bundle.labels, split.examples, predictions))


def _tweet(tweet: Tweet, *, with_pictures: bool) -> Tweet:
    return tweet if with_pictures else replace(tweet, image=None, objects=())
