"""What objects are worth where only crops decide: F1 with objects given, found, none, and another tweet's.

    python benchmarks/scattered.py BUNDLE DATA --out FILE.json [--split test]

The data are the drawn set *scattered* (`hvpnet.data.write_scattered`); the bundle has a grounder. "Another tweet's" are
the given objects of the next tweet whose picture is another, a control: that a model gets crops at all tells nothing.
"""

import argparse
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hvpnet import Pipeline
from hvpnet.bench.machine import describe_machine
from hvpnet.data import Split, load_split
from hvpnet.evaluation.scoring import score_pipeline

BACKEND = "onnxruntime-cpu"


def another_tweets(split: Split) -> Split:
    """The split, in which every tweet has the objects of the next one that shows another picture."""
    examples, count = split.examples, len(split.examples)
    swapped = []
    for row, example in enumerate(examples):
        others = (examples[(row + step) % count].tweet for step in range(1, count))
        other = next(each for each in others if each.image != example.tweet.image)
        swapped.append(replace(example, tweet=replace(example.tweet, objects=other.objects)))
    return replace(split, examples=tuple(swapped))


def scores(bundle: Path, split: Split, objects: str) -> dict[str, Any]:
    with Pipeline.load(bundle, BACKEND, objects=objects) as pipeline:
        return asdict(score_pipeline(pipeline, split))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with Pipeline.load(options.bundle, BACKEND) as pipeline:
        bundle = pipeline.bundle
    split = load_split(options.data, options.split, labels=bundle.labels, pictures=bundle.pictures)
    ways = {objects: (split, objects) for objects in ("given", "found", "none")}
    ways |= {"another tweet's": (another_tweets(split), "given")}
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "sizes": asdict(bundle.sizes),
        "grounder": {name: value for name, value in asdict(bundle.grounder).items() if name != "parity"},
        "data": {"name": options.data.name, "split": options.split, **split.counts},
        "scores": {name: scores(options.bundle, *way) for name, way in ways.items()},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, found in result["scores"].items():
        print(f"{name:<16} {found['f1']:.1%}")


if __name__ == "__main__":
    main()
