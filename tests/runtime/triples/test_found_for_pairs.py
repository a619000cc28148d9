"""Pairs whose objects are found by their names: a picture is searched once for all of them, beside those of others."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_grounder import COLOURS, add_grounder
from waiting import eventually

from hvpnet_runtime import Mention, PictureError, Pipeline, Rejection, TriplePipeline, Tweet
from hvpnet_runtime.backends import Grounder
from hvpnet_runtime.preprocessing.encoded_picture import EncodedPicture
from hvpnet_runtime.preprocessing.prepare import Preparer

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("capitals")]

WORDS = ["Red", "met", "Blue", "at", "Green", "today"]
BOXES = {"red": (4, 8, 24, 40), "blue": (40, 0, 64, 12), "green": (0, 52, 10, 64)}


def photo(shift: int) -> bytes:
    image, file = Image.new("RGB", (64, 64), "white"), io.BytesIO()
    for colour, (x0, y0, x1, y1) in BOXES.items():
        image.paste(COLOURS[colour], (x0, y0, x1, y1 - shift))
    image.save(file, "png")
    return file.getvalue()


POSTS = [Tweet(words=WORDS, image=photo(shift), id=shift) for shift in range(4)]


@pytest.fixture(scope="module")
def grounded(re_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for relations that looks for head and tail."""
    return add_grounder(Path(shutil.copytree(re_bundle, tmp_path_factory.mktemp("pairs") / "bundle")), queries="text")


@pytest.fixture(scope="module")
def pipeline(ner_bundle: Path, grounded: Path) -> Iterator[TriplePipeline]:
    entities = Pipeline.load(ner_bundle, "onnxruntime-cpu", window=True)
    with TriplePipeline(entities, Pipeline.load(grounded, "onnxruntime-cpu", objects="found")) as made:
        yield made


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Pictures and queries of every run of the grounder."""
    made: list[tuple[int, int]] = []
    search = Grounder.find_objects

    def find_objects(grounder: Grounder, images: Any, queries: Any) -> Any:
        made.append(queries.shape[:2])
        return search(grounder, images, queries)

    monkeypatch.setattr(Grounder, "find_objects", find_objects)
    return made


def test_pictures_of_a_batch_are_searched_together(
    pipeline: TriplePipeline, runs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, for all six pairs of its post; nothing is searched for before the entities are known."""
    pipeline.forget()
    finder = pipeline.relations.finder
    assert finder is not None
    finder.batch = 8
    together = finder._searcher._together
    run, gathered = together._run, list[bool]()

    def when_the_others_wait(searches: Any) -> Any:
        if not runs:
            gathered.append(eventually(lambda: len(together._waiting) == 3))
        return run(searches)

    monkeypatch.setattr(together, "_run", when_the_others_wait)
    prepared = [pipeline.prepare(post) for post in POSTS]
    assert runs == []
    results = pipeline.run(prepared)
    assert (gathered, runs) == ([True], [(1, 3), (3, 3)])
    assert [len(result.entities) for result in results] == [3] * 4
    assert pipeline.run(prepared) == results  # what was found is kept
    assert len(runs) == 2


def test_a_post_is_prepared_with_one_look_at_its_picture(
    pipeline: TriplePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.forget()
    decode, decoded = EncodedPicture.cuts, list[str]()

    def cuts(file: EncodedPicture, *arguments: Any, **options: Any) -> Any:
        decoded.append(file.name)
        return decode(file, *arguments, **options)

    monkeypatch.setattr(EncodedPicture, "cuts", cuts)
    pipeline.prepare(POSTS[0])
    assert len(decoded) == 1


def test_pairs_have_the_objects_that_they_have_alone(pipeline: TriplePipeline, grounded: Path) -> None:
    (post, *_), names = POSTS, [word for word in WORDS if word[:1].isupper()]
    prepared = pipeline.prepare(post)
    (asked,) = pipeline.posts.ask([prepared], pipeline.entities.run([prepared]))
    assert asked.pairs == tuple(pair for pair in permutations(range(3), 2) if pair in asked.pairs)
    assert len(asked.pairs) >= 4
    answers = pipeline.relations.run(asked.prepared)
    with Pipeline.load(grounded, "onnxruntime-cpu") as relations:
        for (head, tail), pair, answer in zip(asked.pairs, asked.prepared, answers, strict=True):
            first, second = WORDS.index(names[head]), WORDS.index(names[tail])
            (alone,) = relations([replace(post, head=(first, first + 1), tail=(second, second + 1))])
            assert pair.objects == alone.objects
            assert pair.objects is not None
            assert {each.query: each.box for each in pair.objects} == {
                name.lower(): BOXES[name.lower()] for name in (names[head], names[tail])
            }
            assert answer.to_dict() == alone.to_dict() | {"score": pytest.approx(alone.to_dict()["score"], abs=1e-5)}


def test_more_names_than_one_search_holds(pipeline: TriplePipeline, runs: list[tuple[int, int]]) -> None:
    pipeline.forget()
    names = [f"word{number}" for number in range(19)] + ["red", "blue"]
    pairs = [[Mention(name, 0, 1) for name in pair] for pair in pairwise(names)]
    prepared = pipeline.prepare(POSTS[0])
    read = pipeline.posts._relations.pictures_found(POSTS[0].image, prepared.words, pairs)  # type: ignore[arg-type]
    assert runs == [(1, 16), (1, 5)]
    assert [[each.query for each in objects] for _, objects in read] == [[]] * 18 + [["red"], ["red", "blue"]]
    assert [sum(picture is not None for picture in pictures) for pictures, _ in read] == [1] * 18 + [2, 3]


@pytest.mark.parametrize("whole", [True, False])
def test_a_picture_that_cannot_be_searched_is_rejected_before(
    pipeline: TriplePipeline, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Also where the model of relations reads crops alone."""
    monkeypatch.setattr(Preparer, "_reads_whole", whole)
    damaged = photo(0)[:100]
    with pytest.raises(PictureError):
        pipeline.posts._relations.check_picture(damaged)
    outcomes = list(pipeline.stream([POSTS[0], Tweet(words=WORDS, image=damaged)]))
    assert isinstance(outcomes[1], Rejection)
