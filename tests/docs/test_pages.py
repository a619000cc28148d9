"""Every example of the README and of the documentation runs as it stands, but for those that declare what they lack."""

import re
import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from places import ROOT
from random_owl_vit import write_random_owl_vit
from tiny_one_stage import one_stage
from walked_pages import blocks_of, walk

from hvpnet import load_checkpoint
from hvpnet.data import Sizes, write_picture_tweets, write_tokenizer
from hvpnet.demo.run import RECIPE, SIZES
from hvpnet.modeling.grounding import load_grounder
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training.config import TrainingConfig
from hvpnet.training.run import train

pytestmark = pytest.mark.heavy

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NOT_HERE = {
    "the package index": 10,
    "minutes": 5,
    "published data": 3,
    "two bundles": 2,
    "a GPU": 4,
    "a Ray cluster": 2,
    "Triton": 2,
}
"""What examples need that a test machine lacks, and how many of them; anything more is to be run."""

RUN = [
    page
    for page in PAGES
    if any(block.language in ("console", "python") and not block.needs for block in blocks_of(page))
]


@pytest.fixture(scope="session")
def world(shared_tmp):
    """What `hvpnet demo` leaves of its model with pictures, and a checkpoint as the published code saves one."""
    from hvpnet_export import export_bundle  # which takes seconds

    out = shared_tmp / "world"
    with FileLock(out.with_suffix(".lock")):
        if not out.exists():
            demo = out.with_name("world.part") / "demo"
            write_picture_tweets(demo / "data", sizes=SIZES)
            write_tokenizer(demo / "tokenizer")
            shutil.copy(RECIPE, demo / "train.toml")
            best = train(TrainingConfig.read(demo / "train.toml")).checkpoint
            model = load_checkpoint(best)
            export_bundle(model, load_tokenizer(best, "ner"), demo / "bundle")
            torch.save(model.state_dict(), demo.parent / "best_model.pth")
            demo.parent.rename(out)
    return out


def give_grounders(folder):
    """Two with random weights under the names of published ones, data, and the OWL-ViT to the bundle that is there."""
    from hvpnet_export import add_grounder
    from hvpnet_export.grounder import ENTITY_TYPES

    words = folder / "bert-base-uncased"
    torch.save({"state_dict": one_stage(words).state_dict()}, folder / "model_best.pth.tar")
    owl_vit = write_random_owl_vit(folder / "owlvit-base-patch32")
    write_picture_tweets(folder / "data/NER_data/twitter2015", sizes=Sizes(train=4, dev=4, test=4))
    if (folder / "bundle").exists():
        linked = (folder / "bundle").resolve()
        (folder / "bundle").unlink()
        add_grounder(shutil.copytree(linked, folder / "bundle"), load_grounder(owl_vit), ENTITY_TYPES)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_examples(page, world, re_bundle, tmp_path, free_port):
    (tmp_path / "demo").symlink_to(world / "demo")
    (tmp_path / "bert-base-uncased").symlink_to(world / "demo/tokenizer")
    shutil.copy(world / "best_model.pth", tmp_path)
    run = [block.text for block in blocks_of(page) if not block.needs]
    for name in ("entities", *(["bundle"] if not any("--out bundle" in text for text in run) else [])):
        (tmp_path / name).symlink_to(world / "demo/bundle")
    if any("--grounder" in text for text in run):
        give_grounders(tmp_path)
    (tmp_path / "relations").symlink_to(re_bundle)
    for name in ("a.jpg", "crop.jpg"):
        shutil.copy(world / "demo/data/images/3000000.jpg", tmp_path / name)
    texts = ["so proud of Jordan today", "good morning from Berlin"]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    for name in ("tweets", "posts"):
        pq.write_table(pa.table({"id": [7, 8], "text": texts}), tmp_path / f"{name}.parquet")
    walk(page, tmp_path, free_port)


def test_examples_that_are_not_run_are_counted():
    needs = Counter(block.needs for page in PAGES for block in blocks_of(page) if block.needs)
    assert needs == NOT_HERE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_stands_outside_a_block_that_is_run(page):
    outside = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4}(?:hvpnet|pip|python|curl|ray|serve) .*$", outside, re.MULTILINE) == []
    for block in blocks_of(page):
        assert block.language in ("console", "python", "json", "toml", "yaml", "text", "mermaid"), block
        assert block.language != "console" or block.text.startswith("$ "), block
