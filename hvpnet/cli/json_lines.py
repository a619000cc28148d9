"""JSON lines that a verb reads: a file, or standard input where it is named `-`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from hvpnet_runtime.jsonl import FileRow, line_rows, read_rows

STANDARD_INPUT = Path("-")


def rows_of(path: Path) -> Iterator[FileRow]:
    """The rows; relative paths of pictures count from the file's folder, of standard input from this process's.

    Raises:
        InputError: the file cannot be read.
    """
    return line_rows(sys.stdin.buffer, Path.cwd()) if path == STANDARD_INPUT else read_rows(path)
