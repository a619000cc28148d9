"""post-graphs: what is true of a post, and what the two models learn of it."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvpnet.data import (
    EntityExample,
    PostExample,
    RelationExample,
    Sizes,
    Split,
    load_split,
    posts_file,
    read_posts,
    write_post_graphs,
)
from hvpnet.data.synthetic.picture_tweets import RELATIONS, TYPES
from hvpnet.data.synthetic.post_graphs import ENDS
from hvpnet.data.synthetic.scenes import Drawing
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS, FAMILIAR, graph_tweet
from hvpnet.errors import DataError
from hvpnet_runtime.decoding.entities import entity_spans

pytestmark = pytest.mark.heavy

SIZES = Sizes(train=150, dev=20, test=40)


def plain(kind: str, rng: np.random.Generator) -> Drawing:
    """A small picture of noise, and one box: the rows do not depend on what is drawn."""
    del kind
    return Drawing(Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)), ((0, 0, 5, 5),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_post_graphs(tmp_path_factory.mktemp("post-graphs"), SIZES, draw=plain)


def read(folder: Path, split: Any) -> tuple[list[PostExample], Split, Split]:
    return (
        read_posts(posts_file(folder, split)),
        load_split(folder / "entities", split),
        load_split(folder / "relations", split),
    )


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_three_views_of_a_post_agree(folder: Path, split: Any) -> None:
    posts, entities, relations = read(folder, split)
    assert len(posts) == len(entities.examples) == getattr(SIZES, split)
    assert relations.relations == RELATIONS
    rows = defaultdict[Any, dict[Any, str]](dict)
    for example in relations.examples:
        assert isinstance(example, RelationExample)
        assert isinstance(example.tweet.image, Path)
        key = example.tweet.words, example.tweet.image.name
        rows[key][example.tweet.head, example.tweet.tail] = example.relation
        assert len(example.tweet.objects or ()) == 1
    for post, example in zip(posts, entities.examples, strict=True):
        assert isinstance(example, EntityExample)
        assert (example.tweet.words, example.tweet.image) == (tuple(post.tweet.words or ()), post.tweet.image)
        assert example.tweet.objects == tuple(post.tweet.objects or ())
        spans = [(each.type, each.first_word, each.last_word) for each in post.entities]
        assert spans == [tuple(each) for each in entity_spans(example.tags)]
        assert isinstance(post.tweet.image, Path)
        asked = rows[tuple(post.tweet.words or ()), post.tweet.image.name]
        ends = [(each.first_word, each.last_word + 1) for each in post.entities]
        assert len(asked) == (2 if len(ends) == 2 else 3)
        related = {(ends[head], ends[tail]): relation for head, relation, tail in post.triples}
        assert {pair: name for pair, name in asked.items() if name != "None"} == related
        assert {(ends[0], ends[1]), (ends[1], ends[0])} <= asked.keys()


def test_pictures_are_the_same(folder: Path) -> None:
    def contents(part: str) -> dict[Path, bytes]:
        files = (path for kind in ("images", "crops") for path in (folder / part / kind).iterdir())
        return {path.relative_to(folder / part): path.read_bytes() for path in files}

    assert len(contents("entities")) > SIZES.train
    assert contents("entities") == contents("relations")


def test_types_are_those_of_the_relation_or_of_the_name(folder: Path) -> None:
    seen, sizes = Counter[tuple[str, str]](), Counter[int]()
    for post in read_posts(posts_file(folder, "train")):
        relation = post.triples[0][1] if post.triples else "None"
        assert all((head, tail) == (0, 1) for head, _, tail in post.triples)
        first, second, *others = post.entities
        assert second.text in AMBIGUOUS
        assert second.type == ENDS[relation][1]
        assert first.type == FAMILIAR.get(first.text, ENDS[relation][0])
        assert first.text in AMBIGUOUS or FAMILIAR[first.text] == "PER"
        assert all(FAMILIAR[each.text] == each.type for each in others)
        assert len({each.text for each in post.entities}) == len(post.entities)
        seen[relation, "ambiguous" if first.text in AMBIGUOUS else "familiar"] += 1
        sizes[len(post.entities)] += 1
    assert seen.keys() == {(relation, head) for relation in RELATIONS for head in ("ambiguous", "familiar")}
    assert sizes.keys() == {2, 3, 4}
    assert {kind for pair in ENDS.values() for kind in pair} == set(TYPES)


@given(st.integers(0, 2**32))
def test_words_hold_the_names(seed: int) -> None:
    words, names = graph_tweet(np.random.default_rng(seed))
    for named in names:
        assert " ".join(words[named.start : named.end]) == named.name
    ends = [0, *(end for named in names for end in (named.start, named.end)), len(words)]
    assert ends == sorted(ends)


def test_words_of_a_seed() -> None:
    words, names = graph_tweet(np.random.default_rng(7))
    assert " ".join(words) == (
        "RT @the_real_mia : look at Saint Martin and Santiago ! ( via Frida Kahlo ) and now World Cup"
        " http://t.co/YvrSp9BDFK"
    )
    assert [each.name for each in names] == ["Saint Martin", "Santiago", "Frida Kahlo", "World Cup"]


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    def contents(name: str, sizes: Sizes, seed: int) -> dict[Path, bytes]:
        made = write_post_graphs(tmp_path / name, sizes, seed, plain)
        return {path.relative_to(made): path.read_bytes() for path in made.rglob("*") if path.is_file()}

    first = contents("a", Sizes(6, 2, 2), 1)
    assert contents("b", Sizes(6, 2, 2), 1) == first
    larger = contents("c", Sizes(9, 2, 2), 1)
    assert larger[Path("test.posts.jsonl")] == first[Path("test.posts.jsonl")]
    other = contents("d", Sizes(6, 2, 2), 2)
    assert all(
        other[name] != first[name] for name in first if name.suffix in (".jsonl", ".txt", ".jpg") and name in other
    )


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty: choose a new folder"):
        write_post_graphs(tmp_path)
