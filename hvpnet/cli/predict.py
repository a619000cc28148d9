"""Extract entities or relations from one tweet, or from JSON lines in batches. Needs no PyTorch."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hvpnet.cli.options import add_pipeline, add_window
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import LineRow, read_rows
from hvpnet_runtime.pipeline import BATCH_SIZE, Pipeline
from hvpnet_runtime.types import EntityResult, Rejection, Result, Tweet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", help="one tweet")
    source.add_argument("--input", type=Path, help="JSON lines; relative picture paths count from this file's folder")
    parser.add_argument("--image", type=Path, help="the tweet's picture")
    parser.add_argument("--object", type=Path, action="append", help="an object crop; up to three are read")
    parser.add_argument("--head", type=int, nargs=2, metavar=("START", "END"), help="words [START, END) of the head")
    parser.add_argument("--tail", type=int, nargs=2, metavar=("START", "END"), help="words [START, END) of the tail")
    parser.add_argument("--output", type=Path, help="where the JSON lines go (default: standard output)")
    add_window(parser)
    add_pipeline(parser)


def run(options: argparse.Namespace) -> int:
    """Predict; exit code 1 if a line of the input was rejected.

    Raises:
        InputError: options of one tweet and of JSON lines are mixed.
    """
    tweet = _tweet(options)
    with Pipeline.load(
        options.bundle,
        options.backend,
        window=options.window,
        on_bad_image=options.on_bad_image,
        precision=options.precision,
    ) as pipeline:
        print(f"hvpnet: backend {pipeline.backend.name}, {pipeline.backend.precision}", file=sys.stderr)
        if tweet is not None:
            (result,) = pipeline.run([pipeline.prepare(tweet)])
            print(json.dumps(result.to_dict(), ensure_ascii=False) if options.json else _readable(result))
            return 0
        rows = read_rows(options.input)
        with _writer(options.output) as output:
            return _predict_lines(pipeline, rows, output)


def _tweet(options: argparse.Namespace) -> Tweet | None:
    """The one tweet of the command line; None for JSON lines."""
    single = (options.image, options.object, options.head, options.tail)
    if options.text is None:
        if any(value is not None for value in single):
            raise InputError("--image, --object, --head and --tail belong to --text; JSON lines have their own")
        return None
    if options.output is not None:
        raise InputError("--output belongs to --input; redirect standard output instead")
    head, tail = (pair and tuple(pair) for pair in (options.head, options.tail))
    return Tweet(text=options.text, image=options.image, objects=options.object or (), head=head, tail=tail)


def _predict_lines(pipeline: Pipeline, lines: Iterator[LineRow], output: IO[str]) -> int:
    """One line out for every line in, in order: a result, or the rejection in its place."""
    rows, rejected = 0, 0
    for outcome in pipeline.stream_rows(lines):
        output.write(json.dumps(outcome.to_dict(), ensure_ascii=False) + "\n")
        rows, rejected = rows + 1, rejected + isinstance(outcome, Rejection)
        if rows % BATCH_SIZE == 0:
            print(f"\rhvpnet: {rows} tweets, {rejected} rejected", end="", file=sys.stderr, flush=True)
    print(f"\rhvpnet: {rows} tweets, {rejected} rejected", file=sys.stderr)
    if rejected:
        print(f"hvpnet: {rejected} of {rows} tweets were rejected; their lines have an error", file=sys.stderr)
    return 1 if rejected else 0


@contextmanager
def _writer(path: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that gets its name once it is complete.

    Half a surrogate pair, which only an id can hold, has no UTF-8; as a backslash escape it is JSON again.
    """
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as output:
        yield output
    part.replace(path)


def _readable(result: Result) -> str:
    if not isinstance(result, EntityResult):
        return f"{result.relation}  {result.score:.3f}"
    cut = [f"({result.cut_words} words lay beyond the piece budget)"] if result.cut_words else []
    found = [
        f"{entity.type:<6} {entity.text}  [{entity.start}, {entity.end})  {entity.score:.3f}"
        for entity in result.entities
    ]
    return "\n".join([*(found or ["no entities"]), *cut])
