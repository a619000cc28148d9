"""Triples end to end on post-graphs: with pictures and without, with types that agree and without, and the threshold.

    python benchmarks/triples.py WORK --out FILE.json

It draws the set, trains both models by the demo's recipe but for the epochs, and exports them into WORK, which takes
half an hour; a run that was cut off goes on. The posts that are scored are drawn with a seed of their own, so that
nothing was chosen by them.
"""

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hvpnet import Pipeline
from hvpnet.bench.machine import describe_machine
from hvpnet.cli.options import progress
from hvpnet.data import PostExample, Sizes, posts_file, read_posts, write_post_graphs
from hvpnet.data.examples import count_files
from hvpnet.demo.graph_models import GRAPH_SIZES, train_graph_models
from hvpnet.evaluation.threshold import best
from hvpnet.evaluation.triple_threshold import try_triple_thresholds
from hvpnet.evaluation.triples import edges, gold_edges, score_triples
from hvpnet_runtime import Entity, EntityResult, TriplePipeline, Tweet

BACKEND = "onnxruntime-cpu"
TEST_SEED = 1
CALLS = 100


def scores(pair: tuple[Pipeline, Pipeline], data: Path, threshold: float) -> dict[str, Any]:
    """Scores of the test split by name: pictures, agreement, whether entities are given, and with the threshold."""
    found: dict[str, Any] = {}
    for pictures, shown in ((True, "with pictures"), (False, "without pictures")):
        posts = read_posts(posts_file(data, "test"), pictures=pictures)
        for any_types, agreement in ((False, "types agree"), (True, "any types")):
            pipeline = TriplePipeline(*pair, any_types=any_types)
            for given, entities in ((False, "end to end"), (True, "given entities")):
                found[f"{shown}, {agreement}, {entities}"] = asdict(score_triples(pipeline, posts, given=given))
        chosen = TriplePipeline(*pair, threshold=threshold)
        found[f"{shown}, types agree, end to end, threshold {threshold:g}"] = asdict(score_triples(chosen, posts))
    return found


def changed_right_answers(pair: tuple[Pipeline, Pipeline], posts: list[PostExample]) -> int:
    """How many right triples are found with any types, and lost where types must agree."""
    lost = 0
    agreeing, free = (TriplePipeline(*pair, any_types=any_types) for any_types in (False, True))
    for post, with_types, without in zip(
        posts, *(each([p.tweet for p in posts]) for each in (agreeing, free)), strict=True
    ):
        right = set(gold_edges(post))
        lost += len(right.intersection(edges(without)) - set(edges(with_types)))
    return lost


def cost(pair: tuple[Pipeline, Pipeline]) -> dict[str, float]:
    """What a post of five entities takes, its picture seen before, and its pairs alone, run as one batch; seconds."""
    pipeline = TriplePipeline(*pair, any_types=True)
    words = ["Messi", "and", "Adele", "with", "Frida", "in", "Berlin", "for", "UNICEF", "today"]
    names = [(place, word) for place, word in enumerate(words) if word[0].isupper()]
    entities = tuple(Entity(word, "PER", 0, 1, place, place, 1.0) for place, word in names)
    post = pipeline.prepare(Tweet(words=words))
    found = EntityResult(None, entities, (), 0)
    pairs = pipeline.posts.ask(post, found).prepared

    def whole() -> None:
        pipeline.entities.run([post])
        asked = pipeline.posts.ask(post, found)
        pipeline.posts.settle(asked, pipeline.relations.run(asked.prepared))  # type: ignore[arg-type]

    taken: dict[str, list[float]] = {"post": [], "pairs": []}
    for _ in range(CALLS):
        for name, call in (("post", whole), ("pairs", lambda: pipeline.relations.run(pairs))):
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    shortest = {name: min(each) for name, each in taken.items()}
    return {"pairs asked": len(pairs), **shortest, "ratio": shortest["post"] / shortest["pairs"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    entities, relations = train_graph_models(options.work.absolute(), progress)
    data, test = options.work / "data", options.work / "test"
    if not test.exists():
        write_post_graphs(test, Sizes(train=1, dev=1, test=GRAPH_SIZES.test), TEST_SEED)
    with Pipeline.load(entities, BACKEND, window=True) as first, Pipeline.load(relations, BACKEND) as second:
        candidates = try_triple_thresholds(TriplePipeline(first, second), read_posts(posts_file(data, "dev")))
        posts = read_posts(posts_file(test, "test"))
        result: dict[str, Any] = {
            "machine": describe_machine(),
            "sizes": asdict(first.bundle.sizes),
            "data": {
                "name": "post-graphs",
                **count_files([post.tweet for post in posts]),
                "entities": sum(len(post.entities) for post in posts),
                "triples": sum(len(post.triples) for post in posts),
            },
            "thresholds on dev": [asdict(each) for each in candidates],
            "right answers changed by agreement": changed_right_answers((first, second), posts),
            "cost of a post of five entities": cost((first, second)),
            "scores": scores((first, second), test, best(candidates).threshold),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, each in result["scores"].items():
        print(f"{name:<60} {each['precision']:.1%} {each['recall']:.1%} {each['f1']:.1%}")


if __name__ == "__main__":
    main()
