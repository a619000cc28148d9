from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvpnet.data import EntityExample, Sizes, load_split
from hvpnet.data.synthetic.picture_tweets import TYPES
from hvpnet.data.synthetic.scattered import (
    FIGURE_OF,
    FIGURES,
    draw_figures,
    draw_scattered,
    picture_size,
    write_scattered,
)
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS
from hvpnet.errors import DataError
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.preprocessing.pictures import to_pixels

pytestmark = pytest.mark.heavy

SIZES = Sizes(train=160, dev=4, test=80)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scattered(tmp_path_factory.mktemp("scattered"), SIZES)


def decided(examples):
    """Examples with an ambiguous name, and the type that the picture tells."""
    for example in examples:
        names = list(zip(example.tweet.words, example.tags, strict=True))
        kinds = {
            tag[2:] for word, tag in names if tag.startswith("B-") and any(word == n.split()[0] for n in AMBIGUOUS)
        }
        if len(kinds) == 1:
            yield example, kinds.pop()


def thumbnail(picture):
    """A picture as 12 x 12 colours and a one, [433]."""
    pixels = np.asarray(picture.convert("RGB").resize((12, 12), Image.Resampling.BOX), dtype=np.float64)
    return np.append(pixels.ravel() / 255, 1.0)


def probe(train, test):
    """Accuracy of a least-squares linear classifier of thumbnails; both arguments are (picture, kind) pairs."""
    features = np.stack([thumbnail(picture) for picture, _ in train])  # [N, 433]
    targets = np.eye(len(TYPES))[[TYPES.index(kind) for _, kind in train]]  # [N, kinds]
    ridge = np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features + ridge, features.T @ targets)  # [433, kinds]
    guesses = np.stack([thumbnail(picture) for picture, _ in test]) @ weights  # [M, kinds]
    return np.mean(guesses.argmax(axis=1) == [TYPES.index(kind) for _, kind in test])


def test_reads_back_with_crops_of_every_picture(folder):
    for split in ("train", "dev", "test"):
        data = load_split(folder, split)
        assert (data.task, len(data.examples)) == ("ner", getattr(SIZES, split))
        assert all(isinstance(example, EntityExample) for example in data.examples)
        assert {len(example.tweet.objects) for example in data.examples} <= {1, 2, 3}
        assert all(Path(crop).is_file() for example in data.examples for crop in example.tweet.objects)


def test_kinds_are_uniform(folder):
    counts = Counter(kind for _, kind in decided(load_split(folder, "train").examples))
    assert set(counts) == set(TYPES)
    assert min(counts.values()) > 0.5 * max(counts.values())


def test_what_the_model_sees_of_the_whole_picture_does_not_decide():
    def pairs(seed, count):
        rng = np.random.default_rng(seed)
        for _ in range(count):
            kind = TYPES[rng.integers(4)]
            yield Image.fromarray(to_pixels(draw_scattered(kind, rng).picture, PictureSpec())), kind

    assert probe(list(pairs(0, 150)), list(pairs(1, 150))) < 0.4  # chance is 0.25


def test_the_crop_decides():
    def pairs(seed, count):
        rng = np.random.default_rng(seed)
        for _ in range(count):
            kind = TYPES[rng.integers(4)]
            scene = draw_figures([FIGURE_OF[kind]], picture_size(180, rng), rng, first_outside=True)
            yield scene.picture.crop(scene.boxes[0]), kind

    assert probe(list(pairs(0, 200)), list(pairs(1, 100))) > 0.9


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TYPES), st.integers(0, 2**32 - 1))
def test_the_deciding_figure_is_small_and_outside_the_middle(kind, seed):
    rng = np.random.default_rng(seed)
    scene = draw_figures([FIGURE_OF[kind], "mug", "phone"], picture_size(180, rng), rng, first_outside=True)
    width, height = scene.picture.size
    short = min(width, height)
    assert 180 <= short <= 360
    assert 16 / 9 - 0.02 < max(width, height) / short < 1.92
    assert scene.names[0] == FIGURE_OF[kind]
    left, top, right, bottom = scene.boxes[0]
    assert 0 < max(right - left, bottom - top) <= 0.36 * short + 1
    margin = 224 / 256 / 2 * short  # half of what Resize(256) and CenterCrop(224) keep
    outside = (
        right <= width / 2 - margin or left >= width / 2 + margin,
        bottom <= height / 2 - margin or top >= height / 2 + margin,
    )
    assert any(outside)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(list(FIGURES)), min_size=1, max_size=6, unique=True))
def test_figures_lie_in_the_picture_and_hide_none(seed, names):
    rng = np.random.default_rng(seed)
    scene = draw_figures(names, picture_size(90, rng), rng, (0.2, 0.5))
    assert scene.names[0] == names[0]
    assert [name for name in names if name in scene.names] == list(scene.names)
    for place, (left, top, right, bottom) in enumerate(scene.boxes):
        assert 0 <= left < right <= scene.picture.width
        assert 0 <= top < bottom <= scene.picture.height
        for x0, y0, x1, y1 in scene.boxes[:place]:
            assert right <= x0 + 1 or x1 <= left + 1 or bottom <= y0 + 1 or y1 <= top + 1  # smooth edges may touch


def test_a_square_picture_has_no_room_outside_the_middle():
    with pytest.raises(ValueError, match="200 x 200 pixels has no room"):
        draw_figures(["mug"], np.array((200, 200)), np.random.default_rng(0), first_outside=True)


@pytest.mark.parametrize("name", FIGURES)
def test_boxes_are_tight(name):
    rng = np.random.default_rng(3)
    scene = draw_figures([name], np.array((200, 300)), rng, (0.4, 0.5))
    pixels = np.asarray(scene.picture, dtype=float)
    rng = np.random.default_rng(3)
    empty = np.asarray(draw_figures([], np.array((200, 300)), rng).picture, dtype=float)
    rows, columns = np.nonzero(np.abs(pixels - empty).max(axis=-1) > 1)
    assert scene.boxes == ((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1),)


@pytest.mark.parametrize("kind", TYPES)
def test_given_boxes_show_the_deciding_figure(kind):
    for seed in range(30):
        drawing = draw_scattered(kind, np.random.default_rng(seed))
        assert 1 <= len(drawing.boxes) <= 3
        for left, top, right, bottom in drawing.boxes:
            assert 0 <= left < right <= drawing.picture.width
            assert 0 <= top < bottom <= drawing.picture.height


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_seed_decides_everything(tmp_path):
    sizes = Sizes(train=4, dev=2, test=2)
    first = contents(write_scattered(tmp_path / "a", sizes, seed=1))
    assert contents(write_scattered(tmp_path / "b", sizes, seed=1)) == first
    other = contents(write_scattered(tmp_path / "c", sizes, seed=2))
    assert all(other[name] != first[name] for name in first if name.suffix in {".txt", ".jpg"} and name in other)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty: choose a new folder"):
        write_scattered(tmp_path)
