import ast
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvpnet.data import NER_LABELS, Sizes, load_split, write_picture_tweets, write_tokenizer
from hvpnet.data.synthetic.picture_tweets import RELATIONS, TYPES
from hvpnet.data.synthetic.scenes import SCENES, draw_scene
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS, FAMILIAR, entity_tweet, relation_tweet, word_list
from hvpnet.errors import DataError
from hvpnet.modeling.tokenizer import load_tokenizer

pytestmark = pytest.mark.heavy

SIZES = Sizes(train=240, dev=30, test=120)
SPLITS = tuple(asdict(SIZES))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One data set of each task."""
    return {task: write_picture_tweets(tmp_path_factory.mktemp(task), task, SIZES) for task in ("ner", "re")}


def entities(words, tags):
    """Names and their types."""
    found = []
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("B-"):
            found.append([word, tag[2:]])
        elif tag.startswith("I-"):
            assert found[-1][1] == tag[2:]
            found[-1][0] += f" {word}"
    return [tuple(entity) for entity in found]


def kind(example):
    """What the picture decides: the relation, or the type of the ambiguous name if there is one."""
    if hasattr(example, "relation"):
        return example.relation
    types = [label for name, label in entities(example.tweet.words, example.tags) if name in AMBIGUOUS]
    return types[0] if types else None


@pytest.mark.parametrize("task", ["ner", "re"])
@pytest.mark.parametrize("split", SPLITS)
def test_reads_back(folders, task, split):
    data = load_split(folders[task], split)
    assert (data.task, data.has_pictures) == (task, True)
    assert len(data.examples) == getattr(SIZES, split)
    assert data.relations == (RELATIONS if task == "re" else None)
    crops = {len(example.tweet.objects) for example in data.examples}
    assert {0, 1} <= crops <= {0, 1, 2, 3, 4}


def test_entities_are_known_names_of_the_right_type(folders):
    seen = Counter()
    for example in load_split(folders["ner"], "train").examples:
        assert set(example.tags) <= set(NER_LABELS)
        names = entities(example.tweet.words, example.tags)
        assert sum(name in AMBIGUOUS for name, _ in names) <= 1
        for name, label in names:
            assert name in AMBIGUOUS or FAMILIAR[name] == label
            seen[name in AMBIGUOUS, label] += 1
        seen["none"] += not names
    assert {(ambiguous, label) for ambiguous in (True, False) for label in TYPES} | {"none"} == set(seen)


def test_relation_rows(folders):
    for split in SPLITS:
        lines = (folders["re"] / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        for line, example in zip(lines, load_split(folders["re"], split).examples, strict=True):
            row = ast.literal_eval(line)
            head, tail = (
                " ".join(example.tweet.words[slice(*span)]) for span in (example.tweet.head, example.tweet.tail)
            )
            assert (head, tail) == (row["h"]["name"], row["t"]["name"])
            assert head != tail
            assert {head, tail} <= set(AMBIGUOUS)


@given(st.integers(0, 2**32))
def test_words_say_nothing_about_the_type(seed):
    tweets = {kind: entity_tweet(kind, np.random.default_rng(seed)) for kind in TYPES}
    words, tags = tweets["PER"]
    for label, (other_words, other_tags) in tweets.items():
        assert other_words == words
        names = dict(entities(words, other_tags))
        assert all(names[name] == FAMILIAR.get(name, label) for name in names)
        assert [tag[0] for tag in other_tags] == [tag[0] for tag in tags]


@given(st.integers(0, 2**32))
def test_relation_words_hold_two_marked_names(seed):
    words, head, tail = relation_tweet(np.random.default_rng(seed))
    assert words[head.start : head.end] == head.name.split()
    assert words[tail.start : tail.end] == tail.name.split()
    assert head.end <= tail.start or tail.end <= head.start


@pytest.mark.parametrize("task", ["ner", "re"])
def test_kinds_are_uniform_over_pictures(folders, task):
    examples = load_split(folders[task], "train").examples
    shown = {example.tweet.image: kind(example) for example in examples if kind(example)}
    kinds = TYPES if task == "ner" else RELATIONS
    counts = Counter(shown.values())
    expected = len(shown) / len(kinds)
    chi_square = sum((counts[name] - expected) ** 2 / expected for name in kinds)
    assert set(counts) == set(kinds)
    assert chi_square < 18.5  # the 99.9 % quantile for four degrees of freedom


@pytest.mark.parametrize("task", ["ner", "re"])
def test_pictures_repeat_within_a_split_and_never_across(folders, task):
    by_split = {}
    for split in SPLITS:
        pictures = [example.tweet.image for example in load_split(folders[task], split).examples]
        by_split[split] = {path.read_bytes() for path in pictures}
        assert len(by_split[split]) == len(set(pictures))
        if split == "train":
            assert 0.04 < 1 - len(set(pictures)) / len(pictures) < 0.18
    assert not by_split["train"] & by_split["test"]
    assert not by_split["train"] & by_split["dev"]
    assert not by_split["dev"] & by_split["test"]


def test_a_repeated_picture_keeps_its_meaning_and_crops(folders):
    for task in ("ner", "re"):
        shown = {}
        for example in load_split(folders[task], "train").examples:
            if kind(example):
                meaning = kind(example), example.tweet.objects
                assert shown.setdefault(example.tweet.image, meaning) == meaning


def thumbnail(path):
    """A picture as 8 x 8 colours and a one, [193]."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX), dtype=np.float64)  # [8, 8, 3]
    return np.append(pixels.ravel() / 255, 1.0)


def probe(train, test, kinds):
    """Accuracy of a least-squares linear classifier of thumbnails; both arguments are (path, kind) pairs."""
    features = np.stack([thumbnail(path) for path, _ in train])  # [N, 193]
    targets = np.eye(len(kinds))[[kinds.index(name) for _, name in train]]  # [N, kinds]
    ridge = 0.1 * np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features + ridge, features.T @ targets)  # [193, kinds]
    guesses = np.stack([thumbnail(path) for path, _ in test]) @ weights  # [M, kinds]
    return np.mean(guesses.argmax(axis=1) == [kinds.index(name) for _, name in test])


@pytest.mark.parametrize(("task", "kinds"), [("ner", TYPES), ("re", RELATIONS)])
@pytest.mark.parametrize("which", ["whole", "first crop"])
def test_the_picture_decides(folders, task, kinds, which):
    def pairs(split):
        examples = [example for example in load_split(folders[task], split).examples if kind(example)]
        if which == "whole":
            return [(example.tweet.image, kind(example)) for example in examples]
        return [(example.tweet.objects[0], kind(example)) for example in examples if example.tweet.objects]

    assert probe(pairs("train"), pairs("test"), kinds) > 0.97


def test_pictures_are_small_files_of_many_sizes(folders):
    images = list((folders["ner"] / "images").glob("*.jpg"))
    assert np.mean([path.stat().st_size for path in images]) < 12_000
    sizes = [Image.open(path).size for path in images]
    assert min(map(min, sizes)) >= 180
    assert max(map(max, sizes)) <= 640
    assert len({width / height > 1 for width, height in sizes}) == 2
    crops = list((folders["ner"] / "crops").glob("*.png"))
    assert np.mean([path.stat().st_size for path in crops]) < 12_000


@pytest.mark.parametrize("name", SCENES)
def test_boxes_lie_in_the_picture(name):
    for seed in range(20):
        drawing = draw_scene(name, np.random.default_rng(seed))
        assert 1 <= len(drawing.boxes) <= 4
        for left, top, right, bottom in drawing.boxes:
            assert 0 <= left < right <= drawing.picture.width
            assert 0 <= top < bottom <= drawing.picture.height


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.parametrize("task", ["ner", "re"])
def test_the_seed_decides_everything(tmp_path, task):
    sizes = Sizes(train=6, dev=2, test=2)
    first = contents(write_picture_tweets(tmp_path / "a", task, sizes, seed=1))
    assert contents(write_picture_tweets(tmp_path / "b", task, sizes, seed=1)) == first
    other = contents(write_picture_tweets(tmp_path / "c", task, sizes, seed=2))
    assert all(other[name] != first[name] for name in first if name.suffix in {".txt", ".jpg"} and name in other)


def test_a_split_does_not_depend_on_the_size_of_another(tmp_path):
    small = write_picture_tweets(tmp_path / "a", sizes=Sizes(train=2, dev=2, test=3))
    large = write_picture_tweets(tmp_path / "b", sizes=Sizes(train=5, dev=2, test=3))
    assert (small / "test.txt").read_bytes() == (large / "test.txt").read_bytes()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty: choose a new folder"):
        write_picture_tweets(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = write_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = load_tokenizer(folder, "ner")
    assert lines == word_list() == sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    return tokenizer


def test_pieces(tokenizer):
    pieces = tokenizer.encode(["RT", "@Tom_K", "Jordan", "unbelievable", "✌🏾", "!"], is_pretokenized=True).tokens
    assert pieces == [
        *("[CLS]", "rt", "@", "to", "##m", "_", "k", "jordan"),
        *("un", "##b", "##e", "##l", "##i", "##e", "##v", "##able", "[UNK]", "!", "[SEP]"),
    ]
    assert tokenizer.encode("[SEP] [MASK] jordan", add_special_tokens=False).tokens == ["[SEP]", "[MASK]", "jordan"]
    assert tokenizer.encode("ÉTÉ", add_special_tokens=False).tokens == ["e", "##t", "##e"]
    assert [tokenizer.token_to_id(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]


def test_only_emoji_are_unknown(folders, tokenizer):
    for task in ("ner", "re"):
        for example in load_split(folders[task], "train").examples:
            encoding = tokenizer.encode(list(example.tweet.words), is_pretokenized=True)
            assert len(encoding.ids) <= 80
            for piece, word in zip(encoding.tokens, encoding.word_ids, strict=True):
                assert (piece == "[UNK]") == (word is not None and not example.tweet.words[word].isascii())


def test_objects_are_listed_by_image_and_by_row(folders):
    entity_lists = json.loads((folders["ner"] / "dev_objects.json").read_text())
    relation_lists = json.loads((folders["re"] / "dev_objects.json").read_text())
    assert all(key.endswith(".jpg") for key in entity_lists)
    assert all(0 <= int(key) < SIZES.dev for key in relation_lists)
