"""Lines of tweets: those that would take much memory are refused before they are parsed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import LONGEST_LINE, parse_line, tweet_from_dict
from hvpnet_runtime.types import Tweet


def test_a_line_that_is_too_long() -> None:
    text = "a" * (LONGEST_LINE - 12)
    assert parse_line(f'{{"text": "{text}"}}') == {"text": text}
    with pytest.raises(InputError, match="a line of 1048577 characters: more than 1048576 are not read"):
        parse_line(f'{{"text": "{text}a"}}')


def test_a_deep_line() -> None:
    for opening, value, closing in [("[", "", "]"), ('{"a": ', "1", "}")]:
        line = f'{{"id": {opening * 32}{value}{closing * 32}}}'
        assert json.dumps(parse_line(line)) == line
        with pytest.raises(InputError, match="nested more than 32 levels deep"):
            parse_line(f'{{"id": {opening * 33}{value}{closing * 33}}}')
    with pytest.raises(InputError, match="not JSON"):
        parse_line('{"id": ' * 100_000)


@pytest.mark.parametrize("key", ["words", "objects", "boxes"])
@pytest.mark.parametrize("value", [False, 0, 0.0, "", {}, True, "a"])
def test_only_null_means_no_list(key: str, value: Any) -> None:
    assert tweet_from_dict({"text": "a", key: None}, Path()) == Tweet(text="a")
    with pytest.raises(InputError, match=f"{key} must be a list, not {type(value).__name__}"):
        tweet_from_dict({"text": "a", key: value}, Path())


@pytest.mark.parametrize(
    "value",
    [
        False, 0, "", [], {}, {"bytes": "aGVsbG8=", "path": None},
        {"bytes": "aGVsbG8=", "path": "a.png"}, {"bytes": False, "path": "a.png"}, {"bytes": None, "path": b"a.png"},
        {"bytes": None, "path": ""}, {"path": "a.png"},
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(value: Any) -> None:
    message = re.escape(f"a picture must be the path of a file, not {value!r}")
    for given in ({"image": value}, {"objects": ["a.png", value]}):
        with pytest.raises(InputError, match=message):
            tweet_from_dict({"text": "a", **given}, Path())


def test_a_null_is_no_image_but_is_no_crop_either() -> None:
    assert tweet_from_dict({"text": "a", "image": None}, Path()).image is None
    with pytest.raises(InputError, match="a picture must be the path of a file, not None"):
        tweet_from_dict({"text": "a", "objects": [None]}, Path())


def test_pictures_as_datasets_have_them() -> None:
    for value, expected in [
        ("a.png", Path("in/a.png")),
        (b"png", b"png"),
        ({"bytes": b"png", "path": "a.png"}, b"png"),
        ({"bytes": b"", "path": "a.png"}, b""),
        ({"bytes": None, "path": "a.png"}, Path("in/a.png")),
    ]:
        tweet = tweet_from_dict({"text": "a", "image": value, "objects": [value]}, Path("in"))
        assert (tweet.image, tweet.objects) == (expected, [expected])
