import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hvpnet import ResNetConfig, load_checkpoint
from hvpnet.data import Sizes, load_split, write_picture_tweets
from hvpnet.errors import CheckpointError, ConfigError, DataError, HvpnetError
from hvpnet.evaluation.eager import evaluate, predict
from hvpnet.evaluation.metrics import EntityScores
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet.training import run as training
from hvpnet.training.config import BertSizes, DataOptions, ModelOptions, RunOptions, TrainingConfig
from hvpnet.training.run import train
from hvpnet.training.run_folder import RunFolder
from hvpnet.training.trainer import Optimisation
from hvpnet_export import compare, export_bundle
from hvpnet_export.parity_cases import example_cases
from hvpnet_runtime import Pipeline

pytestmark = pytest.mark.heavy

EPOCHS = 3


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products are faster so, above all beside other programs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tweets(tmp_path_factory):
    """A few picture-tweets."""
    return write_picture_tweets(tmp_path_factory.mktemp("tweets"), "ner", Sizes(train=6, dev=3, test=3))


@pytest.fixture
def make_config(tweets, tokenizer_dir, tmp_path):
    """Runs of a tiny model, a second or so each."""

    def make(out="run", variant="text_only", root=tweets, **options):
        model = ModelOptions(
            tokenizer=tokenizer_dir,
            bert=BertSizes(32, 2, 2, 48, 64),
            resnet=ResNetConfig("basic", (1, 1, 1, 1)),
            variant=variant,
            projection_size=8,
            max_length=48,
        )
        values = {"epochs": EPOCHS, "batch_size": 4, "lr": 1e-3, "head_lr": 1e-2, "warmup_ratio": 0.2}
        return TrainingConfig(DataOptions(root), model, RunOptions(tmp_path / out, **values | options))

    return make


def contents(folder):
    """All that a run leaves, but for the configuration, which names the folder."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("config.toml", "state.pt")
    )
    state = torch.load(folder / "last/state.pt", weights_only=True)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files} | {"state": state}


def assert_same(first, second):
    """To the bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def killed_at(monkeypatch, owner, name, call):
    """Makes a call of a function, counted from 0, the last thing that happens; returns how to undo that."""
    original, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        calls.append(args)
        if len(calls) > call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)
    return lambda: monkeypatch.setattr(owner, name, original)


# What a run leaves


def test_a_run(make_config):
    config, begun, reported = make_config(), [], []
    result = train(config, say=begun.append, report=reported.append)
    out = config.train.out
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert history[2]["loss"] < history[0]["loss"]
    for line, each in zip(reported, history, strict=False):
        assert line == f"epoch {each['epoch']} of {EPOCHS}: loss {each['loss']:.4f}, dev F1 {each['dev']['f1']:.4f}"
    assert (
        reported[EPOCHS] == f"best epoch {result.best_epoch}: dev F1 {result.dev.f1:.4f}, test F1 {result.test.f1:.4f}"
    )
    assert begun[0].startswith("reading the train split: ")
    best = max(history, key=lambda entry: (entry["dev"]["f1"], entry["epoch"]))
    assert (result.best_epoch, result.dev.f1) == (best["epoch"], best["dev"]["f1"])
    assert TrainingConfig.read(out / "config.toml") == config
    assert result.checkpoint == out / "best"
    model, tokenizer = load_checkpoint(result.checkpoint), load_tokenizer(result.checkpoint, "ner")
    assert tokenizer.to_str() == load_tokenizer(config.model.tokenizer, "ner").to_str()
    for name, scores in (("dev", result.dev), ("test", result.test)):
        assert evaluate(model, tokenizer, load_split(config.data.root, name).examples) == scores
    assert [path.name for path in out.rglob(".*")] == [".lock"]


@pytest.mark.parametrize(
    ("f1", "begin", "best"),
    [((0.5, 0.7, 0.7), 1, 3), ((0.7, 0.5, 0.6), 1, 1), ((0.9, 0.2, 0.1), 2, 2), ((0, 0, 0), 1, 3)],
)
def test_best_dev_score_is_kept(make_config, monkeypatch, f1, begin, best):
    states = []

    def scripted(model, *_args):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return EntityScores(0.0, 0.0, ([*f1[begin - 1 :], 0.0][len(states) - 1]), {})

    monkeypatch.setattr(training, "evaluate", scripted)
    result = train(make_config(eval_begin_epoch=begin))
    assert (result.best_epoch, result.dev.f1) == (best, f1[best - 1])
    assert_same(load_checkpoint(result.checkpoint).state_dict(), states[best - begin])
    assert_same(states[-1], states[best - begin])  # the test split is scored with the best


def test_epochs_before_evaluation(make_config):
    config = make_config(eval_begin_epoch=3)
    train(config)
    history = [json.loads(line) for line in (config.train.out / "history.jsonl").read_text().splitlines()]
    assert [entry["dev"] is None for entry in history] == [True, True, False]


def test_without_test_split(make_config, tweets, tmp_path):
    root = shutil.copytree(tweets, tmp_path / "tweets")
    (root / "test.txt").unlink()
    assert train(make_config(root=root)).test is None


# Resuming


def test_killed_at_any_write(make_config, monkeypatch):
    """Every rename of the run is its last in turn: what is resumed ends as the undisturbed run, to the bit."""
    undisturbed, renames = train(make_config("undisturbed")), []
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: [renames.append(target), rename(self, target)][1])
    train(make_config("counted"))
    monkeypatch.setattr(Path, "replace", rename)
    expected = contents(undisturbed.checkpoint.parent)
    for call in range(len(renames)):
        config = make_config(f"killed{call}")
        undo = killed_at(monkeypatch, Path, "replace", call)
        with pytest.raises(Killed):
            train(config)
        undo()
        result = train(config)
        assert (result.best_epoch, result.dev, result.test) == (
            undisturbed.best_epoch,
            undisturbed.dev,
            undisturbed.test,
        )
        assert_same(contents(config.train.out), expected)


def test_killed_in_an_epoch_with_pictures(make_config, monkeypatch):
    """There are two steps an epoch; the random ResNet and its batch norms come back from the state."""
    undisturbed = train(make_config("undisturbed", "full"))
    for step in (1, 4):
        config = make_config(f"killed{step}", "full")
        undo = killed_at(monkeypatch, Optimisation, "_loss", step)
        with pytest.raises(Killed):
            train(config)
        undo()
        torch.manual_seed(99)
        train(config)
        assert_same(contents(config.train.out), contents(undisturbed.checkpoint.parent))


def test_a_finished_run_is_not_trained_again(make_config, monkeypatch):
    config = make_config()
    result = train(config)
    killed_at(monkeypatch, Optimisation, "epoch", 0)
    assert train(config) == result


def test_another_configuration_is_refused(make_config):
    config = make_config(epochs=1)
    train(config)
    before = contents(config.train.out)
    with pytest.raises(ConfigError, match="holds a run of another configuration"):
        train(make_config(epochs=2))
    assert_same(contents(config.train.out), before)


def test_a_folder_of_something_else_is_refused(make_config):
    config = make_config()
    config.train.out.mkdir()
    (config.train.out / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else than a training run"):
        train(config)


def test_damaged_state(make_config):
    config = make_config(epochs=1)
    train(config)
    state = config.train.out / "last/state.pt"
    state.write_bytes(state.read_bytes()[:-900])
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: remove .*run to begin"):
        train(config)


def edited(out, edit):
    """Saves the state anew after an edit."""
    path = out / "last/state.pt"
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


DAMAGES = {
    "a missing part": lambda state: state.pop("scheduler"),
    "no mapping": lambda state: state.update(model=3),
    "other weights": lambda state: state["model"].update({"fc.weight": torch.zeros(2, 2)}),
    "a missing weight": lambda state: state["model"].popitem(),
    "a weight that is no number": lambda state: state["model"]["crf.transitions"].fill_(float("nan")),
    "no optimiser": lambda state: state.update(optimizer={}),
    "moments of other weights": lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
    "no schedule": lambda state: state.update(scheduler=[]),
    "no list": lambda state: state.update(history=None),
    "an entry too many": lambda state: state["history"].append({"epoch": 9, "loss": 1.0, "dev": None}),
    "text for an entry": lambda state: state.update(history=["epoch"]),
    "other scores": lambda state: state["history"][0].update(dev={"f1": "best"}),
    "a loss that is none": lambda state: state["history"][0].update(loss="low"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_edited_state(make_config, monkeypatch, damage):
    config = make_config()
    undo = killed_at(monkeypatch, Optimisation, "epoch", 1)
    with pytest.raises(Killed):
        train(config)
    undo()
    edited(config.train.out, DAMAGES[damage])
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged: remove .*run to begin the run again") as caught:
        train(config)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_of_the_state(make_config):
    """PyTorch itself reads the other number."""
    config = make_config(epochs=1)
    train(config)
    state = config.train.out / "last/state.pt"
    damaged = bytearray(state.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    state.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged"):
        train(config)


def test_only_one_process_trains_in_a_folder(make_config, monkeypatch):
    config = make_config(epochs=2)
    before = contents(train(make_config("other", epochs=2)).checkpoint.parent)
    with RunFolder(config.train.out) as other:
        other.check(config)  # of a folder that is not there
        other.begin(config)
        with pytest.raises(HvpnetError, match=r"another process trains in .*run: wait for it, or choose another"):
            train(config)
    train(config)
    assert_same(contents(config.train.out), before)


def test_two_runs_that_begin_at_once(make_config):
    config = make_config()
    with RunFolder(config.train.out) as first, RunFolder(config.train.out) as second:
        first.check(config)
        second.check(config)
        first.begin(config)
        with pytest.raises(HvpnetError, match="another process trains in"):
            second.begin(config)
    with RunFolder(config.train.out / "new") as first, RunFolder(config.train.out / "new") as second:
        first.check(config)
        second.check(config)
        with first:
            first.begin(config)
        with pytest.raises(HvpnetError, match="another process began to train in"):
            second.begin(config)


# What cannot be trained


@pytest.mark.parametrize("variant", ["full", "only_obj"])
def test_pictures_must_be_there(make_config, tweets, tmp_path, variant):
    root = tmp_path / "texts"
    root.mkdir()
    for name in ("train", "dev", "test"):
        shutil.copy(tweets / f"{name}.txt", root)
    config = make_config(root=root, variant=variant)
    with pytest.raises(
        DataError, match=rf"the train split of .*texts has no folder of pictures, which variant {variant}"
    ):
        train(config)
    assert not config.train.out.exists()
    assert train(make_config(root=root, epochs=1)).best_epoch == 1


def test_divergence(make_config):
    with pytest.raises(HvpnetError, match=r"the loss of epoch \d is (nan|inf): lower train\.lr"):
        train(make_config(lr=1e30, warmup_ratio=0.0))


@pytest.mark.parametrize("error", [OSError("No space left on device"), RuntimeError("PytorchStreamWriter\nfailed")])
def test_full_disk(make_config, monkeypatch, error):
    def full(*_args):
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        HvpnetError, match=r"state\.pt cannot be written: .*make room or choose another train\.out"
    ) as caught:
        train(make_config())
    assert "\n" not in str(caught.value)


# The point of it


def test_relations_are_learned_from_pictures_exported_and_served(tokenizer_dir, tmp_path):
    """Near chance, one in five, without the pictures; the runtime predicts exactly what the eager model does."""
    root = write_picture_tweets(tmp_path / "data", "re", Sizes(train=320, dev=8, test=30))
    (root / "train_objects.json").write_text("{}")  # whole pictures are enough to learn from, and half the work
    model_options = ModelOptions(
        tokenizer=tokenizer_dir,
        bert=BertSizes(128, 2, 2, 256, 64),
        resnet=ResNetConfig("basic", (1, 1, 1, 1)),
        projection_size=64,
        max_length=64,
    )
    run = RunOptions(tmp_path / "run", epochs=4, batch_size=8, lr=1e-3, head_lr=5e-3, warmup_ratio=0.1)
    result = train(TrainingConfig(DataOptions(root), model_options, run))
    model, tokenizer = load_checkpoint(result.checkpoint), load_tokenizer(result.checkpoint, "re")
    examples = load_split(root, "test").examples
    predicted = predict(model, tokenizer, examples)
    assert result.test.accuracy > 0.9
    withheld = [replace(example, tweet=replace(example.tweet, image=None, objects=())) for example in examples]
    assert evaluate(model, tokenizer, withheld).accuracy < 0.5
    export_bundle(model, tokenizer, tmp_path / "bundle", precisions=("fp32", "fp16"))
    with Pipeline.load(tmp_path / "bundle") as pipeline:
        assert [each.relation for each in pipeline([example.tweet for example in examples])] == predicted
    cases = example_cases(model.config, tokenizer, examples)
    report = compare(model, tmp_path / "bundle", "fp16", cases).require()
    assert (report.decisions, report.disagreements) == (len(examples), ())
