"""The scores that the command prints, against scores counted here from a pipeline's answers and the gold."""

import ast
import copy
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from seqeval.metrics.sequence_labeling import get_entities

from hvpnet import HVPNeT
from hvpnet.cli import main
from hvpnet.data import NER_LABELS, load_split
from hvpnet.modeling.tokenizer import load_tokenizer
from hvpnet_export import export_bundle
from hvpnet_runtime import EntityResult, Pipeline
from hvpnet_runtime.bundle import Task

pytestmark = pytest.mark.heavy


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and error."""
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def own_data(picture_tweets: Callable[[Task], Path], tmp_path: Path) -> Path:
    """A data set to change."""
    return Path(shutil.copytree(picture_tweets("ner"), tmp_path / "own"))


def test_what_was_read_is_said(capsys: pytest.CaptureFixture[str], ner_bundle: Path, own_data: Path) -> None:
    counts = load_split(own_data, "test").counts
    assert counts["pictures"]
    assert counts["crops"]
    code, out, err = evaluate(capsys, ner_bundle, "--data", own_data, "--json")
    assert code == 0
    assert {name: json.loads(out)[name] for name in counts} == counts
    assert f"scoring 24 tweets, {counts['pictures']} pictures, {counts['crops']} crops on onnxruntime-cpu" in err


def test_missing_lists_of_crops(capsys: pytest.CaptureFixture[str], bundle_of: Any, own_data: Path) -> None:
    (own_data / "test_objects.json").unlink()
    code, _, err = evaluate(capsys, bundle_of("ner"), "--data", own_data)
    assert code == 1
    assert "its lists of crops are missing, looked for" in err
    assert evaluate(capsys, bundle_of("ner"), "--data", own_data, "--without-pictures")[0] == 0
    assert evaluate(capsys, bundle_of("ner", "text_only"), "--data", own_data)[0] == 0


def test_cures_are_options(capsys: pytest.CaptureFixture[str], ner_bundle: Path, own_data: Path) -> None:
    image = next(iter(load_split(own_data, "test").examples)).tweet.image
    assert isinstance(image, Path)
    Image.new("RGB", (9, 9)).save(own_data / "images/inf.png")
    image.unlink()
    code, _, err = evaluate(capsys, ner_bundle, "--data", own_data)
    assert code == 1
    assert err.rstrip().endswith("/images: add it, or take inf.png with --on-bad-image substitute")
    Image.new("RGB", (40_000, 8)).save(image, "PNG")  # Pillow opens it
    assert evaluate(capsys, ner_bundle, "--data", own_data)[0] == 1
    code, out, _ = evaluate(capsys, ner_bundle, "--data", own_data, "--on-bad-image", "substitute", "--json")
    assert code == 0
    assert json.loads(out)["tweets"] == 24
    shutil.rmtree(own_data / "images")
    code, _, err = evaluate(capsys, ner_bundle, "--data", own_data)
    assert code == 1
    assert err.rstrip().endswith("reads them: add their folder, or score with --without-pictures")


def test_tags_that_the_bundle_knows_are_scored(
    capsys: pytest.CaptureFixture[str],
    bundle_of: Callable[..., Path],
    ner_model: HVPNeT,
    tokenizer_dir: Path,
    own_data: Path,
    tmp_path: Path,
) -> None:
    found = Counter(
        tag[2:] for tags in answered(bundle_of("ner"), own_data, pictures=True) for tag in tags if tag != "O"
    )
    ((own, _),) = found.most_common(1)
    model = copy.deepcopy(ner_model)
    model.config = replace(model.config, labels=tuple(label.replace(own, "TIME") for label in NER_LABELS))
    export_bundle(model, load_tokenizer(tokenizer_dir, "ner"), tmp_path / "bundle")
    text = own_data / "test.txt"
    answers = answered(tmp_path / "bundle", own_data, pictures=True)
    learn_every_other(text, "ner", answers)
    code, out, _ = evaluate(capsys, tmp_path / "bundle", "--data", own_data, "--json")
    assert code == 0
    assert 0 < json.loads(out)["per_type"]["TIME"]["recall"] <= 1
    text.write_text(text.read_text("utf-8").replace("TIME", "DAY"), "utf-8")
    code, _, err = evaluate(capsys, tmp_path / "bundle", "--data", own_data)
    assert code == 1
    assert "unknown tag 'B-DAY'" in err or "unknown tag 'I-DAY'" in err


def test_tweets_without_a_piece_change_no_score(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, own_data: Path
) -> None:
    """To the published code they are [CLS] and [SEP], and their words count neither as gold nor as predicted."""
    learn_every_other(own_data / "test.txt", "ner", answered(ner_bundle, own_data, pictures=True))
    expected = json.loads(evaluate(capsys, ner_bundle, "--data", own_data, "--json")[1])
    image = next(iter(load_split(own_data, "test").examples)).tweet.image
    assert isinstance(image, Path)
    with (own_data / "test.txt").open("a", encoding="utf-8") as text:
        text.write(f"\nIMGID:{image.stem}\n\u200b\tB-PER\n\u200d\ufe0f\tO\n")
    code, out, err = evaluate(capsys, ner_bundle, "--data", own_data, "--json")
    assert code == 0, err
    assert json.loads(out) == expected | {"tweets": 25}


def test_types_are_a_table(capsys: pytest.CaptureFixture[str], ner_bundle: Path, own_data: Path) -> None:
    learn_every_other(own_data / "test.txt", "ner", answered(ner_bundle, own_data, pictures=True))
    scores = json.loads(evaluate(capsys, ner_bundle, "--data", own_data, "--json")[1])["per_type"]
    lines = evaluate(capsys, ner_bundle, "--data", own_data)[1].splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("per type")]
    assert lines[first].split() == ["per", "type", "precision", "recall", "f1"]
    shown = [line.split() for line in lines[first + 1 :]]
    assert shown == [[name, *(f"{value:.4g}" for value in row.values())] for name, row in scores.items()]


def test_a_missing_scorer_is_found_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], ner_bundle: Path, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    monkeypatch.setattr(Pipeline, "load", lambda *_, **__: pytest.fail("the bundle was loaded"))
    code, _, err = evaluate(capsys, ner_bundle, "--data", own_data)
    assert code == 1
    assert err == "hvpnet: error: scoring entities needs the package seqeval: pip install 'hvpnet[eval]'\n"


def answered(bundle: Path, data: Path, *, pictures: bool) -> list[Any]:
    """The bundle answers with these tags, or this relation, for every tweet of the test split."""
    tweets = [example.tweet for example in load_split(data, "test").examples]
    if not pictures:
        tweets = [replace(tweet, image=None, objects=()) for tweet in tweets]
    with Pipeline.load(bundle) as pipeline:
        results = pipeline(tweets)
    return [list(result.tags) if isinstance(result, EntityResult) else result.relation for result in results]


def learn_every_other(text: Path, task: Task, answers: Sequence[Any]) -> None:
    """Makes the answers to every other tweet its gold: a model with random weights is hardly ever right."""
    lines = text.read_text("utf-8").splitlines()
    if task == "re":
        rows = [ast.literal_eval(line) for line in lines]
        for row, answer in list(zip(rows, answers, strict=True))[::2]:
            row["relation"] = answer
        text.write_text("".join(f"{row}\n" for row in rows), "utf-8")
        return
    tweet = -1
    for number, line in enumerate(lines):
        if line.startswith("IMGID:"):
            tweet, tags = tweet + 1, iter(answers[tweet + 1])
        elif line and tweet % 2 == 0:
            lines[number] = f"{line.partition(chr(9))[0]}\t{next(tags)}"
    text.write_text("\n".join(lines) + "\n", "utf-8")


def f1(correct: float, predicted: float, gold: float) -> float:
    return 2 * correct / (predicted + gold) if predicted + gold else 0


def evaluated(capsys: pytest.CaptureFixture[str], bundle: Path, data: Path, *, pictures: bool) -> dict[str, Any]:
    """What the command prints."""
    flags = [] if pictures else ["--without-pictures"]
    assert main(["evaluate", str(bundle), "--data", str(data), "--json", *flags]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (printed["split"], printed["tweets"]) == ("test", 24)
    return printed


@pytest.fixture(params=[True, False], ids=["with pictures", "without pictures"])
def pictures(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def case(
    bundle_of: Callable[..., Path], picture_tweets: Callable[[Task], Path], tmp_path: Path, pictures: bool
) -> Callable[[Task], tuple[Path, Path, list[Any]]]:
    """A bundle, a data set of which it gets about half right, and its answers."""

    def make(task: Task) -> tuple[Path, Path, list[Any]]:
        bundle, data = bundle_of(task), shutil.copytree(picture_tweets(task), tmp_path / task)
        answers = answered(bundle, data, pictures=pictures)
        learn_every_other(data / "test.txt", task, answers)
        return bundle, data, answers

    return make


def test_entity_scores(capsys: pytest.CaptureFixture[str], case: Callable[..., Any], pictures: bool) -> None:
    bundle, data, answers = case("ner")
    gold = [example.tags for example in load_split(data, "test").examples]
    found, wanted = (
        {(tweet, *entity) for tweet, tags in enumerate(sequences) for entity in get_entities(list(tags))}
        for sequences in (answers, gold)
    )
    correct, predicted, expected = (Counter(entity[1] for entity in each) for each in (found & wanted, found, wanted))
    printed = evaluated(capsys, bundle, data, pictures=pictures)
    assert 0.2 < printed["f1"] < 0.9
    assert printed["precision"] == pytest.approx(correct.total() / predicted.total())
    assert printed["recall"] == pytest.approx(correct.total() / expected.total())
    assert printed["f1"] == pytest.approx(f1(correct.total(), predicted.total(), expected.total()))
    assert printed["per_type"].keys() == predicted.keys() | expected.keys()
    for name, scores in printed["per_type"].items():
        assert scores["f1"] == pytest.approx(f1(correct[name], predicted[name], expected[name])), name


def test_relation_scores(capsys: pytest.CaptureFixture[str], case: Callable[..., Any], pictures: bool) -> None:
    bundle, data, answers = case("re")
    gold = [example.relation for example in load_split(data, "test").examples]
    hits = [answer for answer, relation in zip(answers, gold, strict=True) if answer == relation]
    correct, predicted, expected = (sum(name != "None" for name in each) for each in (hits, answers, gold))
    printed = evaluated(capsys, bundle, data, pictures=pictures)
    assert 0.2 < printed["f1"] < 0.9
    assert "None" in gold
    assert printed["f1"] == pytest.approx(f1(correct, predicted, expected))
    assert printed["precision"] == pytest.approx(correct / predicted)
    assert printed["recall"] == pytest.approx(correct / expected)
    assert printed["accuracy"] == pytest.approx(len(hits) / 24)
