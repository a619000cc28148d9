"""Extract entities or relations from one tweet, or from JSON lines in batches. Needs no PyTorch."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from hvpnet.cli.json_lines import STANDARD_INPUT, rows_of
from hvpnet.cli.options import (
    PipelineOptions,
    WindowOptions,
    argument,
    in_options,
    json_for,
    note_missing_objects,
    option,
)
from hvpnet.cli.terminal import Counter, Span, highlighted, shows_colours
from hvpnet_runtime.answering import BATCH_SIZE
from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import FileRow
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import EntityResult, Rejection, Result, Tweet


@dataclass(frozen=True, kw_only=True)
class Options(WindowOptions, PipelineOptions):
    """What `hvpnet predict` was asked to do.

    Raises:
        InputError: options of one tweet and of JSON lines are mixed, or the output (or standard output) is the input.
    """

    bundle: Path = argument()
    text: str | None = option("one tweet", one_of="source", required=True)
    input: Path | None = option(
        "JSON lines, - for those of standard input; relative picture paths count from this file's folder",
        one_of="source",
        required=True,
    )
    image: Path | None = option("the tweet's picture")
    object: list[Path] | None = option("an object crop; up to three are read", action="append")
    head: list[int] | None = option("characters [START, END) of the head", nargs=2, metavar=("START", "END"))
    tail: list[int] | None = option("characters [START, END) of the tail", nargs=2, metavar=("START", "END"))
    output: Path | None = option("where the JSON lines go (default: standard output)")

    def __post_init__(self) -> None:
        single = (self.image, self.object, self.head, self.tail)
        if self.input is not None and any(value is not None for value in single):
            raise InputError("--image, --object, --head and --tail belong to --text; JSON lines have their own")
        if self.input is None and self.output is not None:
            raise InputError("--output belongs to --input; redirect standard output instead")
        for written in (self.output, self.output and _unfinished(self.output)):
            if self.input and written and self.input.exists() and written.exists() and written.samefile(self.input):
                raise InputError(f"--output {self.output} would replace the tweets of --input; name another file")
        if self.input not in (None, STANDARD_INPUT) and self.output is None and _is_standard_output(self.input):
            raise InputError(f"standard output is --input {self.input}, which would never end; name another file")


def run(options: Options) -> int:
    """Predict; exit code 1 if a line of the input was rejected."""
    with Pipeline.load(
        options.bundle,
        options.backend,
        window=options.window,
        on_bad_image=options.on_bad_image,
        precision=options.precision,
        device=options.device,
        jpeg=options.jpeg,
        objects=options.objects,
    ) as pipeline:
        print(f"hvpnet: backend {pipeline.backend.name}, {pipeline.backend.precision}", file=sys.stderr)
        if options.input is not None:
            rows = rows_of(options.input)
            with _writer(options.output) as output:
                code = _predict_lines(pipeline, rows, output)
            note_missing_objects(pipeline.without_objects)
            return code
        (result,) = pipeline.run([pipeline.prepare(_tweet(options))])
        if not options.json and options.text is not None and shows_colours(sys.stdout):
            print(highlighted(options.text, _spans(result)))
        print(json_for(sys.stdout, result.to_dict()) if options.json else _readable(result))
        note_missing_objects(pipeline.without_objects)
        return 0


def _is_standard_output(path: Path) -> bool:
    """Whether both are one regular file: answers that were written to it would be read as tweets."""
    try:
        given, written = path.stat(), os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # there is no such file, or standard output has none
        return False
    return stat.S_ISREG(written.st_mode) and os.path.samestat(given, written)


def _tweet(options: Options) -> Tweet:
    """The one tweet of the command line."""
    head, tail = ((pair[0], pair[1]) if pair else None for pair in (options.head, options.tail))
    return Tweet(text=options.text, image=options.image, objects=options.object, head=head, tail=tail)


def _predict_lines(pipeline: Pipeline, lines: Iterator[FileRow], output: TextIO) -> int:
    """One line out for every line in, in order: a result, or the rejection in its place."""
    rows, rejected, counter = 0, 0, Counter()
    for outcome in pipeline.stream_rows(lines):
        if isinstance(outcome, Rejection):
            outcome = replace(outcome, message=in_options(outcome.message, Options))  # noqa: PLW2901
        output.write(f"{json_for(output, outcome.to_dict())}\n")
        rows, rejected = rows + 1, rejected + isinstance(outcome, Rejection)
        if rows % BATCH_SIZE == 0:
            counter.show(f"{rows} tweets, {rejected} rejected")
    counter.show(f"{rows} tweets, {rejected} rejected", is_last=True)
    if rejected:
        print(f"hvpnet: {rejected} of {rows} tweets were rejected; their lines have an error", file=sys.stderr)
    return 1 if rejected else 0


@contextmanager
def _writer(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that gets its name once it is complete; until then it ends in `.part`."""
    if path is None:
        yield sys.stdout
        return
    is_special = path.exists() and not path.is_file()  # a device or a pipe, which must stay one
    unfinished = path if is_special else _unfinished(path)
    with unfinished.open("w", encoding="utf-8") as output:
        yield output
    if not is_special:
        unfinished.replace(path)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _spans(result: Result) -> list[Span]:
    """What is highlighted of the text: entities, or the pair of a relation where the two do not overlap."""
    if isinstance(result, EntityResult):
        return [Span(each.start, each.end, each.type) for each in result.entities]
    first, second = sorted((result.head, result.tail), key=lambda mention: mention.start)
    return [Span(each.start, each.end, "pair") for each in (first, second) if each is first or first.end <= each.start]


def _readable(result: Result) -> str:
    if not isinstance(result, EntityResult):
        relation = f"{result.head.text}  {result.relation}  {result.tail.text}  {result.score:.3f}"
        return "\n".join([relation, *_found_objects(result)])
    cut = [f"({result.cut_words} words lay beyond the piece budget)"] if result.cut_words else []
    found = [
        f"{entity.type:<6} {entity.text}  [{entity.start}, {entity.end})  {entity.score:.3f}"
        for entity in result.entities
    ]
    return "\n".join([*(found or ["no entities"]), *cut, *_found_objects(result)])


def _found_objects(result: Result) -> list[str]:
    """A line for each object that was found in the picture; scores of some grounders are about 1e-4."""
    return [f"object {each.query}  {list(each.box)}  {each.score:.2g}" for each in result.objects or ()]
