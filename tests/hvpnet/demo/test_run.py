"""The whole demo on a few tweets; every number of its report is computed once more from what it left on disk."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hvpnet.data import Sizes, load_split
from hvpnet.data.synthetic.tweet_text import AMBIGUOUS
from hvpnet.demo import run_demo
from hvpnet.demo.run import RECIPE
from hvpnet.errors import DataError
from hvpnet.evaluation.eager import predict, score
from hvpnet.modeling.checkpoint import load_checkpoint
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_runtime import Pipeline

pytestmark = pytest.mark.heavy

SIZES = Sizes(train=16, dev=2, test=8)
WAYS = {
    "runtime": "runtime, with pictures",
    "eager": "eager PyTorch, with pictures",
    "pictures_withheld": "the same model, pictures withheld",
    "trained_without_pictures": "trained without pictures",
}
TIMED = {
    "eager": "eager PyTorch",
    "runtime_new_pictures": "runtime, new pictures",
    "runtime_seen_pictures": "runtime, pictures seen before",
}
COLOURS = {"PER": (0xC2, 0x41, 0x0C), "LOC": (0x15, 0x80, 0x3D), "ORG": (0x1D, 0x4E, 0xD8), "MISC": (0x7E, 0x22, 0xCE)}


def small_recipe(folder):
    """The demo's own, with a small text encoder that a few tweets train."""
    text = RECIPE.read_text("utf-8")
    for old, new in (
        ("hidden_size = 128", "hidden_size = 64"),
        ("num_hidden_layers = 4", "num_hidden_layers = 1"),
        ("batch_size = 16", "batch_size = 2"),
        ("lr = 5e-4", "lr = 2e-3"),
    ):
        assert text.count(f"\n{old}\n") == 1
        text = text.replace(old, new)
    path = folder / "small.toml"
    path.write_text(text, "utf-8")
    return path


def modified(folder):
    """When each file that takes long to make was written."""
    kept = ("data", "tokenizer", "runs", "bundle")
    return {path: path.stat().st_mtime_ns for name in kept for path in (folder / name).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Folder, figures and steps of a demo, and the figures and steps of the same demo run again."""
    out, recipe = tmp_path_factory.mktemp("demo"), small_recipe(tmp_path_factory.mktemp("recipe"))
    steps, steps_again, epochs = [], [], []
    figures = run_demo(out, steps.append, SIZES, recipe, report=epochs.append)
    assert [each.partition(":")[0] for each in epochs].count("epoch 1 of 8") == 2  # with pictures, and without
    before = modified(out)
    again = run_demo(out, steps_again.append, SIZES, recipe)
    assert modified(out) == before
    return out, figures, steps, again, steps_again


@pytest.fixture(scope="module")
def tags(demo):
    """The held-out tweets, and the tags of the four ways by way."""
    out = demo[0]
    examples = load_split(out / "data", "test").examples
    model, blind = (load_checkpoint(out / "runs" / name / "best") for name in ("full", "text_only"))
    tokenizer = load_tokenizer(out / "tokenizer", "ner")
    withheld = [replace(each, tweet=replace(each.tweet, image=None, objects=())) for each in examples]
    with Pipeline.load(out / "bundle") as pipeline:
        results = pipeline([example.tweet for example in examples])
    found = (
        [result.tags for result in results],
        predict(model, tokenizer, examples),
        predict(model, tokenizer, withheld),
        predict(blind, tokenizer, examples),
    )
    return examples, results, dict(zip(WAYS, found, strict=True))


def test_the_runtime_tags_as_eager_does(demo, tags):
    _, _, by_way = tags
    runtime, eager = by_way["runtime"], by_way["eager"]
    assert runtime == eager
    assert demo[1].differing_tweets == 0
    assert demo[1].tweets == len(runtime) == SIZES.test
    assert demo[1].accuracy["runtime"] == demo[1].accuracy["eager"]


def names_right(examples, predicted):
    """How many of the ambiguous names have their gold tags, and an end where the gold has it; and all of them."""
    right = total = 0
    for example, tags in zip(examples, predicted, strict=True):
        words = example.tweet.words
        for start in range(len(words)):
            for end in (start + 1, start + 2):
                if " ".join(words[start:end]) in AMBIGUOUS and len(words[start:end]) == end - start:
                    total += 1
                    after = tags[end] if end < len(tags) else "O"
                    right += tags[start:end] == example.tags[start:end] and after[0] != "I"
    return right, total


@pytest.mark.parametrize("way", WAYS)
def test_accuracy(demo, tags, way):
    out, figures, *_ = demo
    examples, _, by_way = tags
    model, tokenizer = load_checkpoint(out / "runs/full/best"), load_tokenizer(out / "tokenizer", "ner")
    assert figures.accuracy.keys() == WAYS.keys()
    assert figures.accuracy[way].f1 == score(model.config, tokenizer, examples, by_way[way]).f1
    right, total = names_right(examples, by_way[way])
    assert total > SIZES.test / 2
    assert figures.accuracy[way].ambiguous == right / total


def test_report(demo):
    out, figures, *_ = demo
    lines = (out / "report.md").read_text("utf-8").splitlines()
    for name, found in figures.accuracy.items():
        assert f"| {WAYS[name]} | {found.f1:.1%} | {found.ambiguous:.1%} |" in lines
    for name, taken in figures.latencies.items():
        assert 0 < taken.minimum <= taken.p50
        assert sum(line.startswith(f"| {TIMED[name]} | ") and line.endswith(" ms |") for line in lines) == 1
    text = " ".join(lines)
    assert f"{SIZES.test} held-out tweets" in text
    assert f"The runtime ({figures.backend}) tags every one of them as eager PyTorch does." in text
    assert f"The FP16 graphs on the same tweets: {figures.fp16}." in text


def test_figure_shows_pictures_and_types(demo, tags):
    _, results, _ = tags
    with Image.open(demo[0] / "report.png") as image:
        colours = {colour: count for count, colour in image.convert("RGB").getcolors(image.width * image.height)}
    assert len(colours) > 1000
    assert colours[255, 255, 255] < 0.9 * sum(colours.values())
    shown = [result for result in results if result.entities][:6]
    types = {entity.type for result in shown for entity in result.entities}
    assert types
    for name, colour in COLOURS.items():
        assert (colours.get(colour, 0) > 200) == (name in types)


def test_run_again_makes_nothing_again(demo):
    _, figures, steps, again, steps_again = demo
    assert steps[0] == "drawing picture-tweets"
    assert again.accuracy == figures.accuracy
    assert again.fp16 == figures.fp16
    assert steps_again == [step for step in steps if step in steps_again]
    assert "drawing picture-tweets" not in steps_again
    assert len(steps_again) < len(steps) - 1  # nor was anything exported


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds an unfinished demo or something else: remove it or choose another"):
        run_demo(tmp_path, print, SIZES)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.txt"]
