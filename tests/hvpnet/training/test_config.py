import json
from pathlib import Path

import pytest

from hvpnet import ResNetConfig
from hvpnet.cli import main
from hvpnet.errors import ConfigError
from hvpnet.training.config import BertSizes, DataOptions, ModelOptions, RunOptions, TrainingConfig

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
            return json.dumps(value, ensure_ascii=False)
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


def test_a_byte_order_mark(tmp_path):
    path = write(tmp_path, TABLES)
    expected = TrainingConfig.read(path)
    path.write_text("\ufeff" + path.read_text("utf-8"), "utf-8")
    assert TrainingConfig.read(path) == expected


def test_paths_made_in_python_are_absolute_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DataOptions(Path("tweets")).root == tmp_path / "tweets"
    with pytest.raises(ConfigError, match="lr: Input should be greater than 0, not 0"):
        RunOptions(Path("run"), 3, 2, lr=0)


def test_a_folder_of_bert(tmp_path):
    config = TrainingConfig.read(write(tmp_path, changed("model.bert", "pretrained/bert")))
    assert config.model.bert == tmp_path / "pretrained/bert"


def test_round_trip(tmp_path):
    tables = changed("model.resnet_weights", 'a "quoted" ☺ 😀 \\.pth')
    config = TrainingConfig.read(write(tmp_path, tables))
    copy = tmp_path / "elsewhere" / "config.toml"
    copy.parent.mkdir()
    copy.write_text(config.to_toml(), "utf-8")
    assert TrainingConfig.read(copy) == config


def test_published_recipes(tmp_path, capsys):
    """As `hvpnet recipe` prints them; their paths count from wherever the file lies."""
    for name, root, epochs, batch_size, warmup_ratio, length in (
        ("twitter2015", "data/NER_data/twitter2015", 30, 8, 0.01, 128),
        ("twitter2017", "data/NER_data/twitter2017", 30, 8, 0.01, 128),
        ("mnre", "data/RE_data", 15, 16, 0.06, 80),
    ):
        assert main(["recipe", name]) == 0
        path = tmp_path / f"{name}.toml"
        path.write_text(capsys.readouterr().out, "utf-8")
        config = TrainingConfig.read(path)
        assert config.data == DataOptions(tmp_path / root, "substitute")
        assert config.train == RunOptions(
            tmp_path / "runs" / name,
            epochs=epochs,
            batch_size=batch_size,
            lr=3e-5,
            head_lr=5e-2,
            weight_decay=1e-2,
            warmup_ratio=warmup_ratio,
            eval_begin_epoch=1 if name == "mnre" else 3,
            seed=1234,
        )
        model = config.model
        assert (model.variant, model.max_length, model.prefix_length, model.projection_size) == ("full", length, 4, 800)
        assert model.resnet == ResNetConfig("bottleneck", (3, 4, 6, 3))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser", {}, "optimiser: unknown key"),
        ("train.epoch", 3, r"train\.epoch: unknown key"),
        ("model.bert.vocab_size", 3, r"model\.bert\.vocab_size: unknown key"),
        ("data", None, ": data: missing"),
        ("train.out", None, r"train\.out: missing"),
        ("model.bert.hidden_size", None, r"model\.bert\.hidden_size: missing"),
        ("data", "tweets", ": data: expected a table"),
        ("data.root", 3, r"data\.root: expected a path, not 3"),
        ("data.root", "", r"data\.root: expected a path, not ''"),
        ("data.on_bad_image", "skip", r"data\.on_bad_image: Input should be 'error' or 'substitute', not 'skip'"),
        ("model.variant", ["full"], r"model\.variant: Input should be 'full', 'flat', '1t3', 'only_obj' or"),
        ("model.bert", 3, r"model\.bert: expected a path, not 3"),
        ("model.bert.hidden_size", 7, r"model\.bert: hidden_size 7 is not a multiple of num_attention_heads 2"),
        ("model.bert.num_hidden_layers", 10**7, r"num_hidden_layers: Input should be less than or equal to 200"),
        ("model.bert.num_hidden_layers", 0, r"model\.bert\.num_hidden_layers: Input should be greater than or equal"),
        ("model.resnet.layers", [1, 1], r"model\.resnet\.layers\.2: missing; model\.resnet\.layers\.3: missing"),
        ("model.resnet.layers", [1, 1, 1, True], r"model\.resnet\.layers\.3: Input should be a valid integer"),
        ("model.max_length", 8.0, r"model\.max_length: Input should be a valid integer, not 8\.0"),
        ("train.epochs", True, r"train\.epochs: Input should be a valid integer, not True"),
        ("train.epochs", "3", r"train\.epochs: Input should be a valid integer, not '3'"),
        ("train.epochs", 0, r"train\.epochs: Input should be greater than or equal to 1, not 0"),
        ("train.batch_size", -1, r"train\.batch_size: Input should be greater than or equal to 1, not -1"),
        ("train.lr", 0, r"train\.lr: Input should be greater than 0, not 0"),
        ("train.lr", "fast", r"train\.lr: Input should be a valid number, not 'fast'"),
        ("train.lr", {"peak": 1}, r"train\.lr: Input should be a valid number"),
        ("train.weight_decay", -0.1, r"train\.weight_decay: Input should be greater than or equal to 0, not -0\.1"),
        ("train.warmup_ratio", 1, r"train\.warmup_ratio: Input should be less than 1, not 1"),
        ("train.eval_begin_epoch", 4, r"train: eval_begin_epoch 4 is beyond the 3 epochs"),
        ("train.eval_begin_epoch", 0, r"train\.eval_begin_epoch: Input should be greater than or equal to 1, not 0"),
        ("train.seed", -1, r"train\.seed: Input should be greater than or equal to 0, not -1"),
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


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_rates_are_finite(tmp_path, number):
    path = tmp_path / "train.toml"
    path.write_text(
        "[data]\nroot = 'a'\n[model]\ntokenizer = 'a'\nbert = 'a'\n[train]\nout = 'a'\nepochs = 1\n"
        f"batch_size = 1\nlr = {number}",
        "utf-8",
    )
    with pytest.raises(ConfigError, match=rf"train\.lr: Input should be a finite number, not {number}"):
        TrainingConfig.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 100_000, "is not a readable TOML file: it is nested too deep"),
        ("[data]\nroot = " + "[" * 150 + "]" * 150, "data.root: expected a path, not "),
        ("# " + "x" * 2**20, "is not a readable TOML file: it has more than 1048576 bytes"),
    ],
    ids=["deep", "deep value", "long"],
)
def test_files_that_are_too_much(tmp_path, text, message):
    path = tmp_path / "train.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        TrainingConfig.read(path)
    assert len(str(caught.value)) < 1000


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml is not a readable TOML file"):
        TrainingConfig.read(tmp_path / "nowhere.toml")
