"""Score a bundle on a data set: entity F1 by seqeval, or relation micro-F1 without the none class."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from hvpnet.cli.options import add_pipeline, progress, show
from hvpnet.data import load_split
from hvpnet.data.examples import SplitName
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet_runtime.pipeline import Pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of Twitter-2015/2017, MNRE or picture-tweets")
    parser.add_argument("--split", default="test", choices=get_args(SplitName))
    parser.add_argument("--without-pictures", action="store_true", help="withhold every picture: what do they add?")
    add_pipeline(parser)


def run(options: argparse.Namespace) -> int:
    """Score and show."""
    split = load_split(options.data, options.split, options.on_bad_image)
    with Pipeline.load(options.bundle, options.backend, precision=options.precision) as pipeline:
        progress(f"scoring {len(split.examples)} tweets on {pipeline.backend.name}, {pipeline.backend.precision}")
        scores = score_pipeline(pipeline, split, with_pictures=not options.without_pictures)
    show({"split": options.split, "tweets": len(split.examples), **asdict(scores)}, as_json=options.json)
    return 0
