"""Posts with triples: what is read, and what is refused with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from hvpnet.data import read_posts
from hvpnet.errors import DataError
from hvpnet_runtime import Entity, Tweet

POST: dict[str, Any] = {
    "words": ["Saint", "Martin", "joins", "NASA", "!"],
    "image": "images/1.jpg",
    "objects": ["crops/1.png"],
    "entities": [{"start": 3, "end": 4, "type": "ORG"}, {"start": 0, "end": 2, "type": "PER"}],
    "triples": [{"head": 1, "relation": "/per/org/member_of", "tail": 0}],
}


def write(folder: Path, *posts: object) -> Path:
    path = folder / "dev.posts.jsonl"
    path.write_text("".join(f"{json.dumps(post)}\n" for post in posts), "utf-8")
    return path


def test_what_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, POST, POST | {"id": "b", "triples": []})
    first, second = read_posts(path)
    assert first.tweet == Tweet(
        words=POST["words"], image=tmp_path / "images/1.jpg", objects=[tmp_path / "crops/1.png"], id=0
    )
    assert first.entities == (
        Entity("NASA", "ORG", 19, 23, 3, 3, 1.0),
        Entity("Saint Martin", "PER", 0, 12, 0, 1, 1.0),
    )
    text = " ".join(POST["words"])
    assert [text[each.start : each.end] for each in first.entities] == ["NASA", "Saint Martin"]
    assert first.triples == ((1, "/per/org/member_of", 0),)
    assert (second.tweet.id, second.triples) == ("b", ())


def test_pictures_can_be_left_out(tmp_path: Path) -> None:
    (post,) = read_posts(write(tmp_path, POST), pictures=False)
    assert post.tweet == Tweet(words=POST["words"], id=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"words": []}, "words must be a list of words"),
        ({"words": ["a", 1]}, "words must be a list of words"),
        ({"text": "a", "colour": 1}, "unknown keys 'colour'"),
        ({"image": 7}, "a picture must be the path of a file"),
        ({"entities": None}, "entities must be a list of objects with start, end, type"),
        ({"entities": [{"start": 0, "end": 1}]}, "entities must be a list of objects with start, end, type"),
        ({"entities": [{"start": 4, "end": 6, "type": "PER"}]}, "lies outside the 5 words"),
        ({"entities": [{"start": True, "end": 2, "type": "PER"}]}, "lies outside the 5 words"),
        ({"entities": [{"start": 0, "end": 1, "type": ""}]}, "has no type"),
        ({"entities": [{"start": 0, "end": 2, "type": "A"}, {"start": 1, "end": 3, "type": "B"}]}, "share a word"),
        ({"triples": [{"head": 0, "relation": "a", "tail": 2}]}, "are not two of the 2 entities"),
        ({"triples": [{"head": 1, "relation": "a", "tail": 1}]}, "are not two of the 2 entities"),
        ({"triples": [{"head": 0, "relation": "None", "tail": 1}]}, "names no relation: leave pairs that have none"),
        ({"triples": [{"head": 0, "relation": 3, "tail": 1}]}, "names no relation"),
        (
            {"triples": [{"head": 0, "relation": "a", "tail": 1}, {"head": 1, "relation": "b", "tail": 0}]},
            "two triples are between the same two entities",
        ),
    ],
)
def test_faults_have_their_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path, POST, POST | change)
    with pytest.raises(DataError) as raised:
        read_posts(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert said in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"posts\.jsonl: cannot be read"):
        read_posts(tmp_path / "dev.posts.jsonl")
    with pytest.raises(DataError, match="holds no posts"):
        read_posts(write(tmp_path))
    path = write(tmp_path, POST)
    path.write_text(f"\n{path.read_text('utf-8')}[1]\n", "utf-8")
    with pytest.raises(DataError, match=":3: not a JSON object but list"):
        read_posts(path)
