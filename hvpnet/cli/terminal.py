"""What a terminal is shown and a file or a pipe is not: colours, and lines that are written over."""

import os
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple, TextIO

_COLOURS = {"PER": 32, "LOC": 34, "ORG": 33, "MISC": 35}
"""Numbers of ANSI escape sequences: green, blue, yellow and magenta."""

_OTHER_COLOUR = 36  # cyan
_SECONDS = 10.0  # between two lines where none can be written over


class Span(NamedTuple):
    """Characters [start, end) of a text, and what they are."""

    start: int
    end: int
    kind: str


def shows_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user does not mind colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def highlighted(text: str, spans: Iterable[Span]) -> str:
    """A text whose spans, which do not overlap, are bold and coloured by their kind."""
    parts, done = [], 0
    for span in sorted(spans):
        colour = _COLOURS.get(span.kind, _OTHER_COLOUR)
        parts += [text[done : span.start], f"\x1b[1;{colour}m{text[span.start : span.end]}\x1b[0m"]
        done = span.end
    return "".join([*parts, text[done:]])


class Counter:
    """Says on standard error how far long work is: in one line on a terminal, elsewhere in one every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS

    def show(self, message: str, *, is_last: bool = False) -> None:
        """Say it, if it is time to."""
        if sys.stderr.isatty():
            print(f"\r\x1b[Khvpnet: {message}", end="\n" if is_last else "", file=sys.stderr, flush=True)
        elif is_last or time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS
            print(f"hvpnet: {message}", file=sys.stderr, flush=True)
