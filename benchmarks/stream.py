"""Tweets per second of `Pipeline.stream` against batches in the order of the tweets, paired, in one run.

    python benchmarks/stream.py BUNDLE --texts data/twitter2015/test.txt --out FILE.json [--precision int8]

`--texts` is a file in the published layout of Twitter-2015. Its pictures are left out, for their cost is the same in
every way. Three ways take turns over the same tweets: batches in order, each prepared before it is run; the same
batches prepared ahead (a stream whose window is one batch); and the stream, whose batches are of similar length.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median

import hvpnet_runtime.stream
from hvpnet import Pipeline, Tweet
from hvpnet.bench.machine import describe_machine
from hvpnet.data.readers import read_entity_text

BATCH_SIZE = 32


def in_order(pipeline: Pipeline, tweets: Sequence[Tweet]) -> None:
    for start in range(0, len(tweets), BATCH_SIZE):
        pipeline.run([pipeline.prepare(tweet) for tweet in tweets[start : start + BATCH_SIZE]])


def streamed(pipeline: Pipeline, tweets: Sequence[Tweet], window: int) -> None:
    whole, hvpnet_runtime.stream.WINDOW_BATCHES = hvpnet_runtime.stream.WINDOW_BATCHES, window
    try:
        for _ in pipeline.stream(tweets, BATCH_SIZE):
            pass
    finally:
        hvpnet_runtime.stream.WINDOW_BATCHES = whole


def padded_pieces(pipeline: Pipeline, run: Callable[[], None]) -> float:
    """Mean pieces of a tweet, padding included, in one run of a way."""
    sizes: list[tuple[int, int]] = []
    encode = pipeline.backend.encode_text

    def noted(text, prefixes):
        sizes.append(text.input_ids.shape)
        return encode(text, prefixes)

    pipeline.backend.encode_text = noted
    try:
        run()
    finally:
        del pipeline.backend.encode_text
    return sum(rows * length for rows, length in sizes) / sum(rows for rows, _ in sizes)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision")
    parser.add_argument("--tweets", type=int, default=2048, help="the first so many of the file (default 2048)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    machine = describe_machine()
    tweets = [example.tweet for _, example in read_entity_text(options.texts)][: options.tweets]
    with Pipeline.load(options.bundle, precision=options.precision) as pipeline:
        ways: dict[str, Callable[[], None]] = {
            "in_order": lambda: in_order(pipeline, tweets),
            "prepared_ahead": lambda: streamed(pipeline, tweets, 1),
            "stream": lambda: streamed(pipeline, tweets, hvpnet_runtime.stream.WINDOW_BATCHES),
        }
        pieces = {name: padded_pieces(pipeline, run) for name, run in ways.items()}  # which also warms them up
        taken = [{name: seconds(run) for name, run in ways.items()} for _ in range(options.repeats)]
        real = mean(pipeline.prepare(tweet).length for tweet in tweets)
        result = {
            "machine": machine,
            "sizes": asdict(pipeline.bundle.sizes),
            "backend": pipeline.backend.name,
            "precision": pipeline.backend.precision,
            "texts": options.texts.absolute().parent.name,
            "tweets": len(tweets),
            "pieces": pieces | {"real": real},
            "seconds": taken,
            "tweets_per_second": {name: len(tweets) / median(each[name] for each in taken) for name in ways},
            "gain_over_in_order": {name: median(each["in_order"] / each[name] for each in taken) for name in ways},
            "gain_of_minima": {
                name: min(each["in_order"] for each in taken) / min(each[name] for each in taken) for name in ways
            },
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
