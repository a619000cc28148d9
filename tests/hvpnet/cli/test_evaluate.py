"""The scores that the command prints, against scores counted here from a pipeline's answers and the gold."""

import ast
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics.sequence_labeling import get_entities

from hvpnet.cli import main
from hvpnet.data import load_split
from hvpnet_runtime import EntityResult, Pipeline
from hvpnet_runtime.bundle import Task


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
