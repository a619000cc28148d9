"""Lines of tweets: those that would take much memory are refused before they are parsed."""

import pytest

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import LONGEST_LINE, parse_line


def test_a_line_that_is_too_long() -> None:
    text = "a" * (LONGEST_LINE - 12)
    assert parse_line(f'{{"text": "{text}"}}') == {"text": text}
    with pytest.raises(InputError, match="a line of 1048577 characters: more than 1048576 are not read"):
        parse_line(f'{{"text": "{text}a"}}')


def test_a_deep_line() -> None:
    with pytest.raises(InputError, match="not JSON"):
        parse_line('{"id": ' * 100_000)
