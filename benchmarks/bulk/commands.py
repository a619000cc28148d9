"""Seconds of `hvpnet annotate` against `hvpnet predict` on the same tweets, start and end of the commands included.

    python benchmarks/bulk/commands.py BUNDLE --out FILE.json [--tweets 3000] [--repeats 7] [--ray]

The commands take turns, after one of each to warm up, and the ratio is of every pair. Tweets are short texts without
pictures, so that what is around the graphs shows. `--ray` has `annotate --ray` take its turn too.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hvpnet.bench.machine import describe_machine
from hvpnet_runtime.bundle import Bundle

WORDS = "Jordan was great in Paris today, and nobody at Apple knew why the #Lakers had sold all of it @home 🌴"
MAIN = "import sys; from hvpnet.cli import main; sys.exit(main())"


def write_tweets(path: Path, tweets: int) -> None:
    """As JSON lines: 4 to 24 words each, drawn from a few."""
    draw, words = random.Random(0), WORDS.split()
    texts = (" ".join(draw.choices(words, k=draw.randint(4, 24))) for _ in range(tweets))
    path.write_text("".join(json.dumps({"id": row, "text": text}) + "\n" for row, text in enumerate(texts)))


def seconds(*arguments: object) -> float:
    """Seconds of the command, from its start to its end."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> list[dict[str, float]]:
    """Interleaved; every round has the seconds of each command."""
    taken = []
    with TemporaryDirectory() as folder:
        source, predicted, annotated = (Path(folder, name) for name in ("tweets.jsonl", "p.jsonl", "a.jsonl"))
        write_tweets(source, options.tweets)
        commands: dict[str, tuple[object, ...]] = {
            "predict": ("predict", options.bundle, "--input", source, "--output", predicted),
            "annotate": ("annotate", options.bundle, source, annotated),
        }
        if options.ray:
            commands["annotate --ray"] = (*commands["annotate"], "--ray")
        for _ in range(options.repeats + 1):
            spent = {}
            for name, command in commands.items():
                annotated.unlink(missing_ok=True)
                spent[name] = seconds(*command)
            taken.append(spent)
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tweets", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--ray", action="store_true", help="measure `annotate --ray` too")
    options = parser.parse_args()
    machine = describe_machine()
    taken = measure(options)
    others = [name for name in taken[0] if name != "predict"]
    result = {
        "machine": machine,
        "sizes": asdict(Bundle.load(options.bundle).sizes),
        "tweets": options.tweets,
        "seconds": taken,
        "median_seconds": {name: median(each[name] for each in taken) for name in taken[0]},
        "ratio_to_predict": {name: median(each[name] / each["predict"] for each in taken) for name in others},
        "ratio_of_minima": {
            name: min(each[name] for each in taken) / min(each["predict"] for each in taken) for name in others
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
