import json
from pathlib import Path

import pytest
from places import ROOT

from hvpnet import ResNetConfig
from hvpnet.errors import ConfigError
from hvpnet.training.config import BertSizes, DataOptions, ModelOptions, RunOptions, TrainingConfig

CONFIGS = ROOT / "configs"
TABLES = {
    "data": {"root": "tweets"},
    "model": {
        "tokenizer": "/bert",
        "bert": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 9},
        "resnet": {"block": "basic", "layers": [1, 1, 1, 1]},
        "variant": "flat",
    },
    "train": {"out": "../run", "epochs": 3, "batch_size": 2, "lr": 1, "eval_begin_epoch": 2},
}


def write(folder, tables):
    """A TOML file: inline tables are those of JSON with `=`."""

    def text(value):
        if not isinstance(value, dict):
            return json.dumps(value)
        return "{" + ", ".join(f"{key} = {text(entry)}" for key, entry in value.items()) + "}"

    path = folder / "train.toml"
    path.write_text("\n".join(f"{key} = {text(value)}" for key, value in tables.items()), "utf-8")
    return path


def changed(key, value):
    """The tables with one dotted key set, or taken away if the value is None."""
    tables = json.loads(json.dumps(TABLES))
    *path, last = key.split(".")
    table = tables
    for name in path:
        table = table[name]
    table[last] = value
    if value is None:
        del table[last]
    return tables


def test_read(tmp_path):
    config = TrainingConfig.read(write(tmp_path, TABLES))
    assert config == TrainingConfig(
        DataOptions(tmp_path / "tweets", "error"),
        ModelOptions(
            tokenizer=Path("/bert"),
            bert=BertSizes(8, 1, 2, 9, 512),
            resnet=ResNetConfig("basic", (1, 1, 1, 1)),
            variant="flat",
        ),
        RunOptions(tmp_path.parent / "run", 3, 2, 1.0, 5e-2, 1e-2, 0.01, 2, 1234),
    )
    assert type(config.train.lr) is float


def test_a_folder_of_bert(tmp_path):
    config = TrainingConfig.read(write(tmp_path, changed("model.bert", "pretrained/bert")))
    assert config.model.bert == tmp_path / "pretrained/bert"


def test_round_trip(tmp_path):
    tables = changed("model.resnet_weights", 'a "quoted" ☺.pth')
    config = TrainingConfig.read(write(tmp_path, tables))
    copy = tmp_path / "elsewhere" / "config.toml"
    copy.parent.mkdir()
    copy.write_text(config.to_toml(), "utf-8")
    assert TrainingConfig.read(copy) == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configurations(path):
    config = TrainingConfig.read(path)
    assert config.model.variant == "full"
    assert TrainingConfig.read(path).train.seed == 1234


def test_published_recipes():
    twitter, mnre = (TrainingConfig.read(CONFIGS / f"{name}.toml") for name in ("twitter2015", "mnre"))
    assert (twitter.train.epochs, twitter.train.batch_size, twitter.train.warmup_ratio) == (30, 8, 0.01)
    assert (mnre.train.epochs, mnre.train.batch_size, mnre.train.warmup_ratio) == (15, 16, 0.06)
    for config, length in ((twitter, 128), (mnre, 80)):
        assert (config.train.lr, config.train.head_lr, config.train.weight_decay) == (3e-5, 5e-2, 1e-2)
        assert (config.model.max_length, config.model.prefix_length, config.model.projection_size) == (length, 4, 800)
        assert config.model.resnet == ResNetConfig("bottleneck", (3, 4, 6, 3))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser", {}, "unknown key optimiser: known are data, model, train"),
        ("train.epoch", 3, "unknown key train.epoch: known are out, epochs"),
        ("model.bert.vocab_size", 3, r"unknown key model\.bert\.vocab_size"),
        ("data", None, "data is missing"),
        ("train.out", None, r"train\.out is missing"),
        ("model.bert.hidden_size", None, r"model\.bert\.hidden_size is missing"),
        ("data", "tweets", r"data must be a table \[data\], not 'tweets'"),
        ("data.root", 3, r"data\.root must be a path, not 3"),
        ("data.root", "", r"data\.root must be a path, not ''"),
        ("data.on_bad_image", "skip", r"data\.on_bad_image must be one of error, substitute, not 'skip'"),
        ("model.variant", ["full"], r"model\.variant must be one of full, flat, 1t3, only_obj, text_only"),
        ("model.bert", 3, r"model\.bert must be a path or a table, not 3"),
        ("model.bert.hidden_size", 7, r"\[model\.bert\]: hidden_size 7 is not a multiple of num_attention_heads 2"),
        ("model.bert.num_hidden_layers", 0, r"\[model\.bert\]: num_hidden_layers must be a positive whole number"),
        ("model.resnet.layers", [1, 1], r"\[model\.resnet\]: layers must be four positive block counts"),
        ("model.resnet.layers", [1, 1, 1, True], r"model\.resnet\.layers must be a list of whole numbers"),
        ("model.max_length", 8.0, r"model\.max_length must be a whole number, not 8\.0"),
        ("train.epochs", True, r"train\.epochs must be a whole number, not True"),
        ("train.epochs", "3", r"train\.epochs must be a whole number, not '3'"),
        ("train.epochs", 0, r"\[train\]: epochs must be at least 1, not 0"),
        ("train.batch_size", -1, r"\[train\]: batch_size must be at least 1"),
        ("train.lr", 0, r"\[train\]: lr must be above 0"),
        ("train.lr", "fast", r"train\.lr must be a number, not 'fast'"),
        ("train.lr", {"peak": 1}, r"train\.lr must be a number"),
        ("train.weight_decay", -0.1, r"\[train\]: weight_decay must be at least 0"),
        ("train.warmup_ratio", 1, r"\[train\]: warmup_ratio must be in \[0, 1\), not 1"),
        ("train.eval_begin_epoch", 4, r"\[train\]: eval_begin_epoch must be in 1 to 3, not 4"),
        ("train.seed", -1, r"\[train\]: seed must be at least 0"),
    ],
)
def test_bad_values_are_named(tmp_path, key, value, message):
    path = write(tmp_path, changed(key, value))
    with pytest.raises(ConfigError, match=message) as caught:
        TrainingConfig.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["train = [", "lr = nan", "\xff"])
def test_files_that_are_not_configurations(tmp_path, text):
    path = tmp_path / "train.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"train\.toml"):
        TrainingConfig.read(path)


def test_infinite_rate(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(
        "[data]\nroot = 'a'\n[model]\ntokenizer = 'a'\nbert = 'a'\n[train]\nout = 'a'\nepochs = 1\n"
        "batch_size = 1\nlr = inf",
        "utf-8",
    )
    with pytest.raises(ConfigError, match=r"train\.lr must be a number, not inf"):
        TrainingConfig.read(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml is not a readable TOML file"):
        TrainingConfig.read(tmp_path / "nowhere.toml")
