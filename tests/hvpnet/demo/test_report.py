"""The figure of the demo's report, looked at pixel by pixel; and which tweets it shows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvpnet.demo.report import draw
from hvpnet.demo.run import _shown
from hvpnet_runtime import EntityResult, Tweet
from hvpnet_runtime.types import Entity, FoundObject

YELLOW, BLACK = (0xFA, 0xCC, 0x15), (0, 0, 0)
FOUND = FoundObject((50, 25, 150, 75), "person", 0.5)


def result(objects: tuple[FoundObject, ...] | None) -> EntityResult:
    return EntityResult(0, (), (), 0, objects)


def extent(image: np.ndarray, colours: list[tuple[int, int, int]]) -> list[int]:
    """Columns and rows that hold pixels of these colours: first and last of both."""
    found = np.any([(image == colour).all(axis=2) for colour in colours], axis=0)
    return [edge for axis in (0, 1) for edge in np.flatnonzero(found.any(axis=axis))[[0, -1]].tolist()]


def test_found_objects_are_drawn_where_they_are(tmp_path: Path) -> None:
    black = Tweet(text="a", image=Image.new("RGB", (200, 100)))  # without words, there is no title of black letters
    draw([(black, result((FOUND,)))], tmp_path / "found.png")
    image = np.asarray(Image.open(tmp_path / "found.png").convert("RGB"))
    left, right, top, bottom = extent(image, [BLACK, YELLOW])
    box = extent(image, [YELLOW])
    width, height = right - left, bottom - top
    shares = [(box[0] - left) / width, (box[1] - left) / width, (box[2] - top) / height, (box[3] - top) / height]
    assert shares == pytest.approx([0.25, 0.75, 0.25, 0.75], abs=0.02)


@pytest.mark.parametrize("objects", [None, ()])
def test_nothing_is_drawn_where_nothing_was_found(objects: Any, tmp_path: Path) -> None:
    draw([(Tweet(words=("a",), image=Image.new("RGB", (200, 100))), result(objects))], tmp_path / "none.png")
    image = np.asarray(Image.open(tmp_path / "none.png").convert("RGB"))
    assert not (image == YELLOW).all(axis=2).any()


def test_objects_of_shown_tweets_are_found_if_there_is_a_grounder() -> None:
    """Tweets with entities are shown so, and their own objects are not read."""
    entity: Any = Entity
    tweets = [Tweet(words=("a",), image=b"", objects=(b"",), id=number) for number in range(3)]
    results: list[Any] = [SimpleNamespace(entities=entities) for entities in ((entity,), (), (entity,))]
    asked: list[Tweet] = []

    class Made:
        finder: Any = None

        def __call__(self, tweets: list[Tweet]) -> list[EntityResult]:
            asked.extend(tweets)
            return [result((FOUND,)) for _ in tweets]

    pipeline: Any = Made()
    assert _shown(pipeline, tweets, results) == [(tweets[0], results[0]), (tweets[2], results[2])]
    pipeline.finder = object()
    shown = _shown(pipeline, tweets, results)
    assert [(tweet.id, tweet.objects, answer.objects) for tweet, answer in shown] == [
        (0, None, (FOUND,)),
        (2, None, (FOUND,)),
    ]
    assert asked == [tweet for tweet, _ in shown]
