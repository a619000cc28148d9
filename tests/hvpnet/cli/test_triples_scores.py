"""`hvpnet evaluate --triples` and `hvpnet triples tune`, on posts of which two bundles get about half right."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from json_keys import assert_snake_case
from PIL import Image

from hvpnet.cli import main
from hvpnet.data import Sizes, posts_file, read_posts, write_post_graphs
from hvpnet.data.synthetic.scenes import Drawing
from hvpnet_runtime import Pipeline, Triple, TriplePipeline, TripleResult

pytestmark = pytest.mark.heavy

Call = Callable[..., tuple[int, str, str]]


def plain(kind: str, rng: np.random.Generator) -> Drawing:
    """A small picture of noise: random weights need no more."""
    del kind
    return Drawing(Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)), ((0, 0, 20, 20),))


@pytest.fixture(scope="module")
def pair(ner_bundle: Path, re_bundle: Path) -> tuple[Path, Path]:
    return ner_bundle, re_bundle


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_post_graphs(tmp_path_factory.mktemp("data"), Sizes(4, 12, 24), draw=plain)


@pytest.fixture(scope="module")
def answers(pair: tuple[Path, Path], data: Path) -> Iterator[list[TripleResult]]:
    """What the bundles answer, which is the truth of every other post from here on."""
    loaded = [Pipeline.load(bundle, "onnxruntime-cpu", window=True) for bundle in pair]
    with TriplePipeline(*loaded, any_types=True) as pipeline:
        found: list[TripleResult] = []
        for split in ("test", "dev"):
            path = posts_file(data, split)
            results = pipeline([post.tweet for post in read_posts(path)])
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            for line, result in list(zip(lines, results, strict=True))[::2]:
                line["entities"] = [
                    {"start": each.first_word, "end": each.last_word + 1, "type": each.type} for each in result.entities
                ]
                ends = list(result.entities)
                line["triples"] = [
                    {"head": ends.index(each.head), "relation": each.relation, "tail": ends.index(each.tail)}
                    for each in result.triples
                ]
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
            found += results
        yield found


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--backend", "onnxruntime-cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def test_scores(call: Call, pair: tuple[Path, Path], data: Path, answers: list[TripleResult]) -> None:
    posts = read_posts(posts_file(data, "test"))
    right = sum(len(result.triples) for result in answers[:24:2])
    found, gold = sum(len(each.triples) for each in answers[:24]), sum(len(post.triples) for post in posts)
    assert right > 4
    code, out, err = call("evaluate", pair[0], "--triples", pair[1], "--data", data, "--any-types", "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert {name: printed[name] for name in ("split", "tweets")} == {"split": "test", "tweets": 24}
    assert (printed["precision"], printed["recall"]) == pytest.approx((right / found, right / gold))
    assert printed["ways"].keys() == {"any_types", "any_types_given_entities"}
    assert printed["ways"]["any_types_given_entities"]["recall"] >= right / gold
    code, out, err = call("evaluate", pair[0], "--triples", pair[1], "--data", data, "--json")
    assert code == 0, err
    both = json.loads(out)
    assert_snake_case(both)
    assert both["ways"]["any_types"] == printed["ways"]["any_types"]
    assert both["ways"]["types_agree"]["f1"] == both["f1"]
    assert both["ways"].keys() == {
        "types_agree", "types_agree_given_entities", "any_types", "any_types_given_entities",
    }  # fmt: skip
    code, out, _ = call("evaluate", pair[0], "--triples", pair[1], "--data", data, "--without-pictures", "--json")
    assert (code, json.loads(out)["pictures"], json.loads(out)["crops"]) == (0, 0, 0)


def test_tuning(call: Call, pair: tuple[Path, Path], data: Path, answers: list[TripleResult]) -> None:
    code, out, err = call("triples", "tune", *pair, "--data", data, "--any-types", "--json")
    assert code == 0, err
    printed = json.loads(out)
    triples = [(row, each) for row, result in enumerate(answers[24:]) for each in result.triples]

    def f1(threshold: float) -> float:
        kept = [(row, each) for row, each in triples if each.score >= threshold]
        gold = sum(len(post.triples) for post in read_posts(posts_file(data, "dev")))
        return 2 * sum(_is_learned(*each) for each in kept) / (len(kept) + gold)

    assert_snake_case(printed)
    tried = {each["threshold"]: each["f1"] for each in printed["candidates"]}
    assert tried.keys() > {0}
    assert tried == pytest.approx({threshold: f1(threshold) for threshold in tried})
    best = max(tried.values())
    assert tried[printed["threshold"]] == best
    code, out, _ = call(
        "evaluate", pair[0], "--triples", pair[1], "--data", data, "--split", "dev", "--any-types",
        "--threshold", printed["threshold"], "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["f1"] == pytest.approx(best)


def _is_learned(row: int, triple: Triple) -> bool:
    """Whether the truth of that post was taken from the answers; no other post's truth is met by random weights."""
    del triple
    return row % 2 == 0


def test_marked_pairs(call: Call, pair: tuple[Path, Path], data: Path) -> None:
    code, out, err = call("evaluate", pair[0], "--triples", pair[1], "--data", data / "relations", "--json")
    assert code == 0, err
    printed = json.loads(out)
    rows = (data / "relations/test.txt").read_text("utf-8").splitlines()
    assert printed["tweets"] == len(rows)
    assert printed["pairs"] == sum("'relation': 'None'" not in row for row in rows)
    assert 0 <= printed["recall"] <= printed["pairs_found"] <= 1
    assert printed["ways"].keys() == {"types_agree", "any_types"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("evaluate", "NER", "--data", "DATA", "--threshold", "0.5"),
            "--threshold and --any-types belong to --triples",
        ),
        (("evaluate", "RE", "--triples", "NER", "--data", "DATA"), "mind the order: entities, then relations"),
        (
            ("evaluate", "NER", "--triples", "RE", "--data", "DATA", "--threshold", "2"),
            "threshold must be a number from 0",
        ),
        (("evaluate", "NER", "--triples", "RE", "--data", "DATA/entities"), "the data are for task ner"),
        (("triples", "tune", "NER", "RE", "--data", "DATA/relations"), "dev.posts.jsonl: cannot be read"),
    ],
)
def test_errors(call: Call, pair: tuple[Path, Path], data: Path, arguments: tuple[str, ...], said: str) -> None:
    names = {"NER": str(pair[0]), "RE": str(pair[1])}
    code, out, err = call(*(names.get(each, each).replace("DATA", str(data)) for each in arguments))
    assert (code, out) == (1, "")
    (line,) = (line for line in err.splitlines() if "error" in line)
    assert line.startswith("hvpnet: error: ")
    assert said in line
