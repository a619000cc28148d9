"""The threshold of a grounder: every candidate scores as a bundle with that threshold, and the best one is kept."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from coloured_data import draw
from json_keys import assert_snake_case
from tiny_grounder import add_grounder

from hvpnet.cli import main
from hvpnet.data import read_split
from hvpnet.data.published import find_split
from hvpnet.evaluation.scoring import score_pipeline
from hvpnet.evaluation.threshold import Candidate, best, thresholds, try_thresholds, with_threshold
from hvpnet_runtime import Bundle, Pipeline, Tweet
from hvpnet_runtime.bundle.rewriting import rewrite_manifest

pytestmark = pytest.mark.heavy

WORDS = ("Jordan", "met", "Madison", "in", "Chicago")
WANTED = 0.1
"""Between the shares of blue (0.07) and red (0.16) in a picture, which are their scores; that of green is 0.03."""


@pytest.fixture
def bundle(ner_bundle: Path, tmp_path: Path) -> Path:
    return add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")), threshold=0.9)


def tags(bundle: Path, tweets: Sequence[Tweet]) -> list[tuple[str, ...]]:
    with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
        return [result.tags for result in pipeline(tweets)]


@pytest.fixture
def data(bundle: Path, tmp_path: Path) -> Path:
    """A dev split that the model gets right if it is shown red and not shown blue and green."""
    root = tmp_path / "data"
    tweets = []
    for number in range(16):
        draw(root / f"images/{number}.jpg", number, *("red", "blue", "green")[: 1 + number % 3])
        words = tuple(np.random.default_rng(number).permutation(WORDS).tolist())
        tweets.append(Tweet(words=words, image=root / f"images/{number}.jpg"))
    rewrite_manifest(bundle, with_threshold(Bundle.load(bundle).manifest, WANTED))
    lines = []
    for number, (tweet, answer) in enumerate(zip(tweets, tags(bundle, tweets), strict=True)):
        assert tweet.words is not None
        lines += [f"IMGID:{number}", *map("\t".join, zip(tweet.words, answer, strict=True)), ""]
    (root / "dev.txt").write_text("\n".join(lines), "utf-8")
    rewrite_manifest(bundle, with_threshold(Bundle.load(bundle).manifest, 0.9))
    return root


def test_every_candidate_scores_as_a_bundle_with_that_threshold(bundle: Path, data: Path) -> None:
    files = find_split(data, "dev")
    with Pipeline.load(bundle, "onnxruntime-cpu") as pipeline:
        candidates = try_thresholds(pipeline, files)
        assert pipeline.finder is not None
        assert pipeline.finder.misses == 16  # each picture was searched once
    assert [each.threshold for each in candidates] == sorted({each.threshold for each in candidates})
    assert candidates[0].threshold == 0
    for each in candidates:
        rewrite_manifest(bundle, with_threshold(Bundle.load(bundle).manifest, each.threshold))
        with Pipeline.load(bundle, "onnxruntime-cpu", objects="found") as pipeline:
            split = read_split(files, objects=False)
            expected = score_pipeline(pipeline, split)
            found = pipeline([example.tweet for example in split.examples])
        assert (each.precision, each.recall, each.f1) == (expected.precision, expected.recall, expected.f1)
        assert each.objects == sum(len(result.objects or ()) for result in found)


def test_the_command_keeps_the_best(bundle: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Bundle.load(bundle).manifest
    run = ["ground", "tune", str(bundle), str(data), "--backend", "onnxruntime-cpu"]
    assert main([*run, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    threshold = Bundle.load(bundle).grounder.threshold
    assert shown["threshold"] == threshold
    assert shown["before"] == 0.9
    assert 20 * 12 / 64**2 < threshold <= 20 * 32 / 64**2
    assert_snake_case(shown)
    tried = {each["threshold"]: each["f1"] for each in shown["candidates"]}
    assert tried[threshold] == 1
    assert tried[0] < 1
    assert Bundle.load(bundle).manifest == with_threshold(before, threshold)
    assert main(run) == 0
    assert any(line.split() == ["threshold", f"{threshold:.4g}"] for line in capsys.readouterr().out.splitlines())
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle", "data"]


def test_the_smallest_of_the_best() -> None:
    rows = [Candidate(threshold, 1, 0.5, 0.5, f1) for threshold, f1 in ((0.0, 0.2), (0.1, 0.7), (0.2, 0.7), (0.3, 0.1))]
    assert best(rows).threshold == best(rows[::-1]).threshold == 0.1


def test_candidates_are_deciles_rounded_down() -> None:
    assert thresholds([]) == []
    assert thresholds([0.123456]) == [0.0, 0.1234]
    scores = [number / 10 + 0.012345 for number in range(10)]
    assert thresholds(scores) == [0.0, *(pytest.approx(each, abs=1e-4) for each in scores[1:])]
    for each in thresholds(scores)[1:]:
        assert any(each <= score < each + 1e-3 for score in scores)


def test_nothing_to_choose_by(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "bare/images/1.jpg", 0)
    (tmp_path / "bare/dev.txt").write_text("IMGID:1\nJordan\tB-PER\n", "utf-8")
    before = (bundle / "manifest.json").read_bytes()
    run = ["ground", "tune", str(bundle), "--backend", "onnxruntime-cpu"]
    assert main([*run, str(tmp_path / "bare")]) == 1
    assert "the grounder finds no objects in the pictures of" in capsys.readouterr().err
    assert main([*run, str(tmp_path)]) == 1
    assert "no dev split in" in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before
