"""Score a bundle on a data set: entity F1 by seqeval, or relation micro-F1 without the none class."""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from hvpnet.cli.options import add_backend, add_json, add_pictures, progress, show
from hvpnet.data import EntityExample, RelationExample, Split, load_split
from hvpnet.data.examples import SplitName
from hvpnet.errors import DataError
from hvpnet.metrics import entity_scores, relation_scores
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preparation import OnBadImage, Prepared
from hvpnet_runtime.types import EntityResult, RelationResult, Tweet

BATCH_SIZE = 32
NONE = "None"
"""The relation that published scores leave out."""


@dataclass(frozen=True)
class Options:
    """What `hvpnet evaluate` was asked to do."""

    bundle: Path
    data: Path
    split: SplitName
    backend: str
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
    add_pictures(parser)
    add_json(parser)


def run(options: Options) -> int:
    """Score and show."""
    split = load_split(options.data, options.split, options.on_bad_image)
    with Pipeline.load(options.bundle, options.backend) as pipeline:
        progress(f"scoring {len(split.examples)} tweets on {pipeline.backend.name}")
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
    gold_entities: list[list[str]] = []
    entities: list[list[str]] = []
    gold_relations: list[int] = []
    relations: list[int] = []
    for start in range(0, len(split.examples), BATCH_SIZE):
        examples = split.examples[start : start + BATCH_SIZE]
        batch = [pipeline.prepare(_tweet(example.tweet, with_pictures=with_pictures)) for example in examples]
        for example, prepared, result in zip(examples, batch, pipeline.run(batch), strict=True):
            if isinstance(example, EntityExample) and isinstance(result, EntityResult):
                gold, tags = _predicted(prepared, example.tags, result.tags)
                gold_entities.append(gold)
                entities.append(tags)
            elif isinstance(example, RelationExample) and isinstance(result, RelationResult):
                gold_relations.append(_relation(bundle.labels, example.relation))
                relations.append(bundle.labels.index(result.relation))
    if bundle.task == "ner":
        return asdict(entity_scores(gold_entities, entities))
    none = bundle.labels.index(NONE) if NONE in bundle.labels else None
    return asdict(relation_scores(gold_relations, relations, none))


def _tweet(tweet: Tweet, *, with_pictures: bool) -> Tweet:
    return tweet if with_pictures else replace(tweet, image=None, objects=())


def _predicted(prepared: Prepared, gold: tuple[str, ...], tags: tuple[str, ...]) -> tuple[list[str], list[str]]:
    kept = [index for index, predicted in enumerate(prepared.predicted_words) if predicted]
    return [gold[index] for index in kept], [tags[index] for index in kept]


def _relation(labels: tuple[str, ...], relation: str) -> int:
    if relation not in labels:
        raise DataError(f"the data have the relation {relation!r}, which the bundle does not know")
    return labels.index(relation)
