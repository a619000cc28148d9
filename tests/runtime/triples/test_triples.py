"""Triples against the two pipelines asked one by one, and what is computed how often."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvpnet_runtime import (
    Entity,
    EntityResult,
    InputError,
    Mention,
    PictureError,
    Pipeline,
    Rejection,
    RelationResult,
    TriplePipeline,
    TripleResult,
    Tweet,
)
from hvpnet_runtime.preprocessing.encoded_picture import EncodedPicture
from hvpnet_runtime.triples.agreement import relation_types
from hvpnet_runtime.triples.pairs import same_node
from hvpnet_runtime.triples.posts import AskedPost

pytestmark = pytest.mark.heavy

COUPLE = "/per/per/couple"
TEXT = "Serena Williams and Florence with UNICEF in Georgia today"
SPANS = {"PER": (0, 2), "LOC": (8 - 1, 8), "ORG": (5, 6), "MISC": (3, 4)}


@pytest.fixture(scope="module")
def pipeline(ner_bundle: Path, re_bundle: Path) -> Iterator[TriplePipeline]:
    with TriplePipeline(
        Pipeline.load(ner_bundle, "onnxruntime-cpu", window=True), Pipeline.load(re_bundle, "onnxruntime-cpu")
    ) as made:
        yield made


@pytest.fixture(scope="module")
def relations(re_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(re_bundle, "onnxruntime-cpu", window=True) as made:
        yield made


def jpeg(seed: int, size: tuple[int, int] = (90, 70)) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def posts() -> list[Tweet]:
    texts = ["Jordan met Florence at UNICEF , Georgia !", TEXT, "Paris", "RT @user : San Marino and BBC love Messi"]
    made = [Tweet(text=text, image=jpeg(row), objects=[jpeg(10 + row)] * row, id=row) for row, text in enumerate(texts)]
    made[1] = replace(made[1], objects=None, boxes=[(0, 0, 30, 40)])
    made[3] = Tweet(words=texts[3].split(), id="three")
    return made


def entity(words: Sequence[str], kind: str, first: int, end: int) -> Entity:
    start = len(" ".join([*words[:first], ""]))
    text = " ".join(words[first:end])
    return Entity(text, kind, start, start + len(text), first, end - 1, 0.5)


def one_by_one(
    relations: Pipeline, post: Tweet, entities: Sequence[Entity], *, any_types: bool = False
) -> dict[tuple[int, int], tuple[str, float]]:
    """The best allowed relation of every ordered pair, asked alone; then the better direction of any two."""
    found: dict[tuple[int, int], tuple[str, float]] = {}
    for head, tail in permutations(range(len(entities)), 2):
        ends = entities[head], entities[tail]
        if same_node(ends[0]) == same_node(ends[1]):
            continue
        unit = [(end.start, end.end) if post.words is None else (end.first_word, end.last_word + 1) for end in ends]
        (answer,) = relations([replace(post, head=unit[0], tail=unit[1])])
        for name in sorted(answer.probabilities, key=lambda each: -answer.probabilities[each]):
            types = relation_types(name)
            if any_types or types in (None, (ends[0].type.lower(), ends[1].type.lower())):
                break
        other, score = found.get((tail, head)), answer.probabilities[name]
        if name != "None" and (other is None or score > other[1]):
            found.pop((tail, head), None)
            found[head, tail] = name, score
    return found


def as_found(result: TripleResult) -> dict[tuple[int, int], tuple[str, float]]:
    places = {entity: place for place, entity in enumerate(result.entities)}
    return {(places[each.head], places[each.tail]): (each.relation, each.score) for each in result.triples}


def assert_same(found: dict[Any, tuple[str, float]], expected: dict[Any, tuple[str, float]]) -> None:
    assert list(found) == sorted(expected)
    for pair, (relation, score) in expected.items():
        assert found[pair] == (relation, pytest.approx(score, abs=1e-5))


@pytest.mark.usefixtures("capitals")
def test_equals_both_pipelines_one_by_one(pipeline: TriplePipeline, relations: Pipeline) -> None:
    given = posts()
    results, found = pipeline(given), pipeline.entities(given)
    assert sum(len(result.triples) for result in results) >= 5
    for post, result, entities in zip(given, results, found, strict=True):
        assert (result.id, result.cut_words, result.cut_pairs) == (post.id, 0, 0)
        assert [each.to_dict() | {"score": 0} for each in result.entities] == [
            each.to_dict() | {"score": 0} for each in entities.entities
        ]
        assert_same(as_found(result), one_by_one(relations, post, result.entities))


def test_between_given_entities_with_any_types(pipeline: TriplePipeline, relations: Pipeline) -> None:
    words = TEXT.split()
    entities = [entity(words, kind, *span) for kind, span in SPANS.items()]
    post = Tweet(words=words, image=jpeg(5), id=7)
    loose = TriplePipeline(pipeline.entities, pipeline.relations, any_types=True)
    (strict,), (any_types,) = pipeline.between([(post, entities)]), loose.between([(post, entities)])
    assert isinstance(strict, TripleResult)
    assert isinstance(any_types, TripleResult)
    assert_same(as_found(strict), one_by_one(relations, post, entities))
    assert_same(as_found(any_types), one_by_one(relations, post, entities, any_types=True))
    assert len(any_types.triples) >= len(strict.triples)
    for triple in strict.triples:
        assert relation_types(triple.relation) == (triple.head.type.lower(), triple.tail.type.lower())
        assert triple.score == triple.probabilities[triple.relation]
        assert sum(triple.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_agreement_changes_nothing_that_was_allowed(pipeline: TriplePipeline) -> None:
    """What is best of all and allowed stays; only the other direction may be better."""
    words = TEXT.split()
    entities = [entity(words, kind, *span) for kind, span in SPANS.items()]
    loose = TriplePipeline(pipeline.entities, pipeline.relations, any_types=True)
    for seed in range(4):
        post = Tweet(words=words, image=jpeg(seed))
        (strict,), (free,) = pipeline.between([(post, entities)]), loose.between([(post, entities)])
        assert isinstance(strict, TripleResult)
        assert isinstance(free, TripleResult)
        allowed = {
            pair: answer
            for pair, answer in as_found(free).items()
            if relation_types(answer[0]) == tuple(entities[place].type.lower() for place in pair)
        }
        assert allowed.items() <= as_found(strict).items()


def test_two_names_have_one_direction(pipeline: TriplePipeline) -> None:
    """Also where one of them stands twice in the post."""
    words = ["Ann", "loves", "Bob", "and", "ANN"]
    entities = tuple(entity(words, "PER", place, place + 1) for place in (0, 2, 4))
    scores = {(0, 1): 0.6, (1, 0): 0.5, (1, 2): 0.9, (2, 1): 0.7}
    asked = AskedPost(EntityResult(None, entities, (), 0), tuple(scores), (), 0)
    mentions = [Mention(each.text, each.start, each.end) for each in entities]
    answers = [
        RelationResult(None, COUPLE, score, mentions[head], mentions[tail], 0, None, {COUPLE: score, "None": 1 - score})
        for (head, tail), score in scores.items()
    ]
    found = as_found(pipeline.posts.settle(asked, answers))
    assert {pair: score for pair, (_, score) in found.items()} == {(1, 0): 0.5, (1, 2): 0.9}


@pytest.mark.usefixtures("capitals")
def test_thresholds_drop_and_change_nothing_else(pipeline: TriplePipeline) -> None:
    (result,) = pipeline(posts()[1:2])
    scores = sorted(triple.score for triple in result.triples)
    assert scores
    held = TriplePipeline(pipeline.entities, pipeline.relations, threshold=scores[-1])
    (kept,) = held(posts()[1:2])
    assert kept.triples == tuple(triple for triple in result.triples if triple.score >= scores[-1])


def test_one_run_of_each_graph_and_one_look_at_the_picture(
    ner_bundle: Path, re_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A post with five entities and one new picture, and nothing cached."""
    runs: list[tuple[str, int]] = []
    decoded: list[str] = []
    cuts = EncodedPicture.cuts
    monkeypatch.setattr(
        EncodedPicture,
        "cuts",
        lambda self, *given, **named: (decoded.append(self.name), cuts(self, *given, **named))[1],
    )
    words = TEXT.split()
    spans = [("PER", 0, 2), ("PER", 3, 4), ("ORG", 5, 6), ("LOC", 7, 8), ("PER", 8, 9)]
    entities = [entity(words, *span) for span in spans]
    with TriplePipeline(
        Pipeline.load(ner_bundle, "onnxruntime-cpu", cache_bytes=0),
        Pipeline.load(re_bundle, "onnxruntime-cpu", cache_bytes=0),
    ) as pipeline:
        for name in ("entities", "relations"):
            backend = getattr(pipeline, name).backend
            for method in ("encode_pictures", "encode_text"):
                monkeypatch.setattr(backend, method, _counted(getattr(backend, method), f"{name} {method}", runs))
        post = pipeline.prepare(Tweet(words=words, image=jpeg(3)))
        assert len(decoded) == 1
        pipeline.entities.run([post])
        (result,) = pipeline.between([(Tweet(words=words, image=jpeg(3)), entities)])
    assert isinstance(result, TripleResult)
    counted = [name for name, _ in runs]
    assert counted.count("entities encode_pictures") == counted.count("relations encode_pictures") == 1
    assert counted.count("entities encode_text") == counted.count("relations encode_text") == 1
    assert dict(runs)["relations encode_text"] == 3 * 2 + 3 + 3  # couples and peers, members of, residents


def _counted(run: Callable[..., Any], name: str, runs: list[tuple[str, int]]) -> Callable[..., Any]:
    def counted(*given: Any) -> Any:
        runs.append((name, len(given[-1])))
        return run(*given)

    return counted


def test_pairs_of_long_posts_are_not_lost(pipeline: TriplePipeline, relations: Pipeline) -> None:
    """Close pairs anywhere in the text are read as by the pipeline of relations, distant ones without their middle."""
    words = ["Messi", "loves", "Adele", *["again"] * 120, "UNICEF", "!"]
    entities = [entity(words, "PER", 0, 1), entity(words, "PER", 2, 3), entity(words, "ORG", 123, 124)]
    post = Tweet(words=words, image=jpeg(8))
    prepared = pipeline.prepare(post)
    found = replace(pipeline.entities.run([prepared])[0], entities=tuple(entities))
    (asked,) = pipeline.posts.ask([prepared], [found])
    assert asked.pairs == ((0, 1), (0, 2), (1, 0), (1, 2))
    assert asked.cut_pairs == 0
    encoder, limit = relations.text_encoder, 64
    near, far = asked.prepared[0].encodings[0], asked.prepared[1].encodings[0]
    assert near == encoder.encode_relation(words, (0, 1), (2, 3), window=True)
    # 62 pieces less four markers, head and tail: 56 of what lies between, and what is not shown is in the middle
    kept = words[:1] + words[1:29] + words[95:123] + words[123:]
    assert far.input_ids == encoder.encode_relation(kept, (0, 1), (57, 58), window=True).input_ids
    assert len(near.input_ids) == len(far.input_ids) == limit
    wide = [replace(entities[0], last_word=70), entities[2]]
    (asked,) = pipeline.posts.ask([prepared], [replace(asked.entities, entities=tuple(wide))])
    assert (asked.pairs, asked.cut_pairs) == ((), 1)


def test_more_pairs_than_the_limit(pipeline: TriplePipeline) -> None:
    words = TEXT.split()
    entities = [entity(words, "PER", place, place + 1) for place in range(5)]
    few = TriplePipeline(pipeline.entities, pipeline.relations, max_pairs=3)
    (result,) = few.between([(Tweet(words=words), entities)])
    assert isinstance(result, TripleResult)
    assert result.cut_pairs == 5 * 4 - 3


def test_bad_posts_are_rejected_and_the_others_answered(pipeline: TriplePipeline) -> None:
    bad = [
        Tweet(text=""),
        Tweet(text="Jordan", image=b"none"),
        Tweet(words=["Jordan", "<s>", "UNICEF"]),
        Tweet(text="a", boxes=[1]),
    ]
    mixed = [bad[0], posts()[0], *bad[1:], posts()[1]]
    outcomes = list(pipeline.stream(mixed, batch_size=2))
    assert [type(each).__name__ for each in outcomes] == [
        "Rejection", "TripleResult", "Rejection", "Rejection", "Rejection", "TripleResult",
    ]  # fmt: skip
    assert [each.type for each in outcomes if isinstance(each, Rejection)] == [
        "TextError", "PictureError", "TextError", "InputError",
    ]  # fmt: skip
    with pytest.raises(PictureError, match="tweet 1"):
        pipeline([posts()[0], bad[1]])
    assert pickle.loads(pickle.dumps(outcomes[1])) == outcomes[1]  # as Ray does


def test_what_cannot_go_together(pipeline: TriplePipeline) -> None:
    both = pipeline.entities, pipeline.relations
    with pytest.raises(InputError, match=r"bundle of entities, .* is for the task re: give one for ner"):
        TriplePipeline(*both[::-1])
    for wrong in (-0.1, 1.5, float("nan"), "0.5", True):
        with pytest.raises(InputError, match="threshold must be a number from 0 to 1"):
            TriplePipeline(*both, threshold=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_pairs must be a whole number, at least 1"):
        TriplePipeline(*both, max_pairs=0)
    with pytest.raises(InputError, match="run takes a list of what prepare returned"):
        pipeline.run(posts())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="outside the post's 1 words"):
        next(iter(_between(pipeline)))


def _between(pipeline: TriplePipeline) -> Iterator[Any]:
    for outcome in pipeline.between([(Tweet(text="Jordan"), [entity(["a", "b"], "PER", 1, 2)])]):
        assert isinstance(outcome, Rejection)
        raise InputError(outcome.message)
    yield
