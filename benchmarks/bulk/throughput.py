"""Tweets per second of bulk annotation on Ray against a loop over `Pipeline`, on generated picture-tweets.

    python benchmarks/bulk/throughput.py BUNDLE --out benchmarks/results/NAME.json [--tweets 400] [--precision int8]

Each repeat takes the loop over the tweets, the bulk run over the same, and the bulk run over twice as many. The last
two differ by the time of the tweets alone; what the shorter one takes beyond that is the start of the actors. Ray is
started before. Figures are medians over the repeats: a minimum of differences would favour a slow shorter run.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hvpnet.bench.machine import describe_machine
from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet_runtime import Pipeline
from hvpnet_runtime.bulk import Job, annotate
from hvpnet_runtime.bulk.on_ray import OnRay
from hvpnet_runtime.bulk.on_ray.cluster import connect
from hvpnet_runtime.bundle import Bundle
from hvpnet_runtime.jsonl import parse_line, tweet_from_dict

BATCH_SIZE = 32


@dataclass(frozen=True)
class Repeat:
    """Seconds of the three runs."""

    loop: float
    bulk: float
    bulk_twice: float

    @property
    def tweets_alone(self) -> float:
        return self.bulk_twice - self.bulk


def write_tweets(root: Path, task: str, tweets: int) -> tuple[Path, Path]:
    """As JSON lines: the tweets, and twice as many."""
    data = write_picture_tweets(root / "data", task, Sizes(2, 2, 2 * tweets))
    lines = []
    for example in load_split(data, "test").examples:
        tweet = example.tweet
        row = {
            "id": tweet.id,
            "words": tweet.words,
            "image": str(tweet.image),
            "objects": [*map(str, tweet.objects or ())],
        }
        lines.append(json.dumps(row | ({} if tweet.head is None else {"head": tweet.head, "tail": tweet.tail})) + "\n")
    paths = data / "once.jsonl", data / "twice.jsonl"
    for path, kept in zip(paths, (lines[:tweets], lines), strict=True):
        path.write_text("".join(kept))
    return paths


def loop(pipeline: Pipeline, source: Path, out: Path) -> None:
    """What one would write by hand."""
    pipeline.cache.clear()
    with source.open() as lines, out.open("w") as answers:
        while chunk := list(islice(lines, BATCH_SIZE)):
            for result in pipeline([tweet_from_dict(parse_line(line), source.parent) for line in chunk], BATCH_SIZE):
                answers.write(json.dumps(result.to_dict(), ensure_ascii=False) + "\n")


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> list[Repeat]:
    """Interleaved, after one run of each to warm up."""
    taken = []
    workers = OnRay(None, options.copies, options.threads)
    with (
        TemporaryDirectory() as folder,
        Pipeline.load(options.bundle, precision=options.precision) as pipeline,
        connect(None),
    ):
        root = Path(folder)
        once, twice = write_tweets(root, pipeline.bundle.task, options.tweets)

        def bulk(source: Path) -> None:
            job = Job(options.bundle, source, root / "bulk.jsonl", precision=options.precision, part_rows=100)
            annotate(job, workers)
            job.output.unlink()

        for _ in range(options.repeats + 1):
            runs = (lambda: loop(pipeline, once, root / "loop.jsonl"), lambda: bulk(once), lambda: bulk(twice))
            taken.append(Repeat(*map(seconds, runs)))
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", help="of the graphs (default: as for `Pipeline.load`)")
    parser.add_argument("--tweets", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--copies", type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    machine = describe_machine()
    taken = measure(options)
    result = {
        "machine": machine,
        "sizes": asdict(Bundle.load(options.bundle).sizes),
        "precision": options.precision,
        "tweets": options.tweets,
        "copies": options.copies,
        "threads": options.threads,
        "seconds": [asdict(repeat) for repeat in taken],
        "loop_tweets_per_second": options.tweets / median(repeat.loop for repeat in taken),
        "bulk_tweets_per_second": options.tweets / median(repeat.tweets_alone for repeat in taken),
        "start_seconds": median(repeat.bulk - repeat.tweets_alone for repeat in taken),
        "ratio": median(repeat.loop / repeat.tweets_alone for repeat in taken),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
