"""Standard error for our own lines: a library that starts processes tells of each of them, in Python and from C++."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

_STDERR = 2


@contextmanager
def own_lines(*, everything: bool) -> Iterator[TextIO]:
    """A stream to standard error; what anybody else prints until the end of the block, or logs, is dropped.

    Args:
        everything: drop nothing, but move what is printed to standard error.
    """
    if everything:
        with redirect_stdout(sys.stderr):
            yield sys.stderr
        return
    stream = _reopened(sys.stderr)
    before = os.dup(_STDERR)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, _own_records(stream):
        os.dup2(nowhere.fileno(), _STDERR)
        try:
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield stream
        finally:
            stream.flush()
            os.dup2(before, _STDERR)
            os.close(before)


def _reopened(stream: TextIO) -> TextIO:
    """A stream to the same place that does not go through the descriptor of standard error."""
    stream.flush()
    try:
        if stream.fileno() != _STDERR:
            return stream
    except OSError:  # it is in memory
        return stream
    return os.fdopen(os.dup(_STDERR), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)


@contextmanager
def _own_records(stream: TextIO) -> Iterator[None]:
    """Log records of ours to this stream, and no others to the console."""
    handlers = [each for each in logging.getLogger().handlers if type(each) is logging.StreamHandler]
    before = [(handler, handler.setStream(stream)) for handler in handlers]
    for handler in handlers:
        handler.addFilter(_is_ours)
    try:
        yield
    finally:
        for handler, console in before:
            handler.removeFilter(_is_ours)
            if console is not None:
                handler.setStream(console)


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in ("hvpnet", "hvpnet_runtime")
