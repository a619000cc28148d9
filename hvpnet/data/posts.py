"""Posts with all their entities and the relations between these, as JSON lines: `{split}.posts.jsonl`.

A line has `words`, `entities` and `triples`, and may have what else a tweet has: `id`, `image`, `objects`, `boxes`. An
entity is the words [`start`, `end`) with their `type`; a triple is a `head`, a `relation` and a `tail`, of which head
and tail are entities by index. Two entities without a triple are unrelated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from hvpnet.data.examples import SplitName
from hvpnet.errors import DataError
from hvpnet.files import DATA_SET, read_text
from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.jsonl import parse_line, tweet_from_dict
from hvpnet_runtime.labels import NO_RELATION
from hvpnet_runtime.types import Entity, Tweet


@dataclass(frozen=True)
class PostExample:
    """A post with its entities and the relations between them.

    Attributes:
        tweet: has `words`, and its place among the lines from 0 as `id` where the line has none.
        entities: as they are given; their scores are 1.
        triples: head, relation and tail; head and tail are entities by index.
    """

    tweet: Tweet
    entities: tuple[Entity, ...]
    triples: tuple[tuple[int, str, int], ...]


def posts_file(root: Path | str, split: SplitName) -> Path:
    """Where the posts of a split lie, if the data set has any."""
    return Path(root) / f"{split}.posts.jsonl"


def read_posts(path: Path | str, *, pictures: bool = True) -> list[PostExample]:
    """Reads the posts of one split; pictures are not opened.

    Args:
        path: the file; relative paths of pictures count from its folder.
        pictures: whether posts are given theirs.

    Raises:
        DataError: a line is not of that form, and the message names it; or there is no post.
    """
    path = Path(path)
    try:
        lines = read_text(path, DATA_SET).split("\n")  # not splitlines(): texts hold what it takes for line ends
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    posts: list[PostExample] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            posts.append(_post(parse_line(line), path.parent, len(posts), pictures=pictures))
        except InputError as error:
            raise DataError(f"{path}:{number}: {error}") from error
    if not posts:
        raise DataError(f"{path}: holds no posts")
    return posts


def _post(values: dict[str, Any], folder: Path, row: int, *, pictures: bool) -> PostExample:
    given = {key: values.pop(key, None) for key in ("entities", "triples")}
    if not pictures:
        values = {key: value for key, value in values.items() if key not in ("image", "objects", "boxes")}
    words = values.get("words")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise InputError("words must be a list of words, one at least")
    entities = tuple(_entity(each, words) for each in _objects(given["entities"], "entities", ("start", "end", "type")))
    spans = sorted((each.first_word, each.last_word) for each in entities)
    if any(start <= end for (_, end), (start, _) in pairwise(spans)):
        raise InputError("two entities share a word")
    triples = tuple(
        _triple(each, len(entities)) for each in _objects(given["triples"], "triples", ("head", "relation", "tail"))
    )
    if len({frozenset((head, tail)) for head, _, tail in triples}) < len(triples):
        raise InputError("two triples are between the same two entities")
    return PostExample(tweet_from_dict({"id": row} | values, folder), entities, triples)


def _objects(given: object, name: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A list of JSON objects with these keys."""
    if not isinstance(given, list) or not all(isinstance(each, dict) and set(each) == set(keys) for each in given):
        raise InputError(f"{name} must be a list of objects with {', '.join(keys)}")
    return given


def _entity(values: dict[str, Any], words: Sequence[str]) -> Entity:
    start, end, kind = values["start"], values["end"], values["type"]
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(words):
        raise InputError(f"the entity {brief(values)} lies outside the {len(words)} words")
    if not isinstance(kind, str) or not kind:
        raise InputError(f"the entity {brief(values)} has no type")
    begins = list(accumulate((len(word) + 1 for word in words), initial=0))  # characters of the words joined by a space
    return Entity(" ".join(words[start:end]), kind, begins[start], begins[end] - 1, start, end - 1, 1.0)


def _triple(values: dict[str, Any], entities: int) -> tuple[int, str, int]:
    head, relation, tail = values["head"], values["relation"], values["tail"]
    if not all(type(end) is int and 0 <= end < entities for end in (head, tail)) or head == tail:
        raise InputError(f"head and tail of {brief(values)} are not two of the {entities} entities, by index from 0")
    if not isinstance(relation, str) or relation in ("", NO_RELATION):
        raise InputError(f"the triple {brief(values)} names no relation: leave pairs that have none out")
    return head, relation, tail
