"""A picture is searched once, by whichever thread comes first, and its objects are where they are drawn."""

import io
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_grounder import COLOURS, add_grounder

from hvpnet_runtime import BackendError, Bundle, InputError, Mention, PictureError, Pipeline, Rejection, Tweet
from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.grounding.finder import ObjectFinder
from hvpnet_runtime.preprocessing.tweet_pictures import EncodedPicture, PictureReader, WholePicture
from hvpnet_runtime.types import FoundObject

RED, BLUE = (8, 16, 40, 48), (64, 0, 96, 24)


def scene(size: tuple[int, int] = (96, 64), **boxes: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    for colour, box in boxes.items():
        image.paste(COLOURS[colour], box)
    return image


def encoded(image: Image.Image, kind: str = "png") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


class Counted:
    """A grounder whose runs are counted, and may be held up or fail."""

    def __init__(self, grounder: Any) -> None:
        self._grounder, self.pictures = grounder, list[int]()
        self.begun, self.go_on, self.error, self.answer = Event(), Event(), None, None
        self.go_on.set()

    def find_objects(self, images: np.ndarray, queries: np.ndarray) -> Any:
        self.pictures.append(len(images))
        self.begun.set()
        assert self.go_on.wait(60)
        if self.error is not None:
            raise self.error
        return self._grounder.find_objects(images, queries) if self.answer is None else self.answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grounder, name)


@pytest.fixture
def make(ner_bundle: Path, tmp_path: Path) -> Callable[..., tuple[ObjectFinder, Counted, PictureReader]]:
    def finder(
        remembered: int = 100, jpeg: str = "full", **settings: Any
    ) -> tuple[ObjectFinder, Counted, PictureReader]:
        path = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle", dirs_exist_ok=True)), **settings)
        bundle = Bundle.load(path)
        grounder = Counted(load_backend(bundle, "onnxruntime-cpu").load_grounder())
        reader = PictureReader(bundle.manifest.preprocessing, jpeg, "error", frozenset())  # type: ignore[arg-type]
        return ObjectFinder(bundle, grounder, remembered), grounder, reader  # type: ignore[arg-type]

    return finder


def found(
    finder: ObjectFinder,
    reader: PictureReader,
    picture: Any,
    words: Sequence[str] = (),
    mentions: Sequence[Mention] = (),
) -> tuple[FoundObject, ...]:
    objects, _ = reader.parts_found(picture, lambda whole: finder(whole, words, [mentions])[0], whole=True)
    return objects


def waiters(finder: ObjectFinder) -> int:
    """Threads that wait for another one's search."""
    return sum(len(search._condition._waiters) for search in list(finder._sought.values()))


def described(objects: tuple[FoundObject, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.query, each.box) for each in objects]


@pytest.mark.parametrize("form", [encoded, lambda image: image, np.asarray])
def test_objects_are_where_they_are_drawn(make: Any, form: Callable[[Image.Image], Any]) -> None:
    """The picture is letterboxed from 96 x 48 to 32 x 16, three pixels to one, with eight rows of padding above."""
    finder, _, reader = make()
    objects = found(finder, reader, form(scene((96, 48), red=(9, 15, 42, 48), blue=(63, 0, 96, 24))))
    assert described(objects) == [("red", (9, 15, 42, 48)), ("blue", (63, 0, 96, 24))]


def test_what_is_found_in_a_square_is_exact(make: Any) -> None:
    finder, grounder, reader = make()
    picture = encoded(scene((64, 64), red=(4, 8, 24, 40), blue=(40, 0, 64, 12), green=(0, 60, 2, 64)))
    assert found(finder, reader, picture) == (
        FoundObject((4, 8, 24, 40), "red", pytest.approx(640 / 4096)),
        FoundObject((40, 0, 64, 12), "blue", pytest.approx(288 / 4096)),
        FoundObject((0, 60, 2, 64), "green", pytest.approx(8 / 4096)),
    )
    assert grounder.pictures == [1]


def test_the_threshold_is_the_bundles(make: Any) -> None:
    finder, _, reader = make(threshold=0.05)
    picture = scene((64, 64), red=(4, 8, 24, 40), blue=(0, 0, 8, 8))
    assert described(found(finder, reader, picture)) == [("red", (4, 8, 24, 40))]


def test_a_picture_seen_before_is_not_searched_nor_decoded(make: Any) -> None:
    finder, grounder, reader = make()
    picture = encoded(scene((64, 64), red=(4, 8, 24, 40)))
    first = found(finder, reader, picture)
    reader._whole = lambda *_: pytest.fail("decoded")  # type: ignore[method-assign]
    assert found(finder, reader, bytes(bytearray(picture))) == first
    assert (grounder.pictures, finder.hits, finder.misses) == ([1], 1, 1)


def test_other_pictures_and_other_queries_are_searched(make: Any) -> None:
    finder, grounder, reader = make(queries="text")
    picture, other = (encoded(scene((64, 64), red=(x, 8, 24, 40), blue=(40, 0, 64, 12))) for x in (4, 8))
    assert described(found(finder, reader, picture, ["red", "car"])) == [("red car", (4, 8, 24, 40))]
    assert described(found(finder, reader, picture, ["blue", "sky", "and", "Red", "car"])) == [
        ("red car", (4, 8, 24, 40)),
        ("blue sky", (40, 0, 64, 12)),
    ]
    assert described(found(finder, reader, other, ["red", "car"])) == [("red car", (8, 8, 24, 40))]
    assert described(found(finder, reader, other, ["good"])) == []  # nothing to look for
    assert grounder.pictures == [1, 1, 1]
    pair = (Mention("Blue", 0, 4), Mention("green", 5, 10))
    assert described(found(finder, reader, picture, ["whatever"], pair)) == [("blue", (40, 0, 64, 12))]


def test_the_least_recently_used_is_forgotten(make: Any) -> None:
    finder, grounder, reader = make(remembered=2)
    one, two, three = (encoded(scene((64, 64), red=(x, 8, 24, 40))) for x in (2, 4, 6))
    for picture in (one, two, one, three, one, two):
        found(finder, reader, picture)
    assert len(grounder.pictures) == 4  # one, two, three, and two again
    finder.forget()
    found(finder, reader, one)
    assert len(grounder.pictures) == 5


def test_threads_share_runs_and_one_picture_is_searched_once(make: Any) -> None:
    finder, grounder, reader = make(queries="text")
    pictures = [encoded(scene((64, 64), red=(2 * x, 8, 24, 40), blue=(40, 2 * x, 64, 12))) for x in range(4)]
    both, red, blue = ["red", "car", "and", "blue", "sky"], ["red", "car"], ["blue", "sky"]
    asked = [(0, red), (1, both), (2, blue), (1, both), (3, red)]
    grounder.go_on.clear()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(found, finder, reader, pictures[0], blue)
        assert grounder.begun.wait(60)
        others = [pool.submit(found, finder, reader, pictures[number], words) for number, words in asked]
        while len(finder._searcher._together._waiting) < 4 or waiters(finder) < 1:
            pass
        grounder.go_on.set()
        assert described(first.result()) == [("blue sky", (40, 0, 64, 12))]
        answers = [described(other.result()) for other in others]
    assert grounder.pictures == [1, 4]
    assert answers[0] == [("red car", (0, 8, 24, 40))]
    assert answers[1] == answers[3] == [("red car", (2, 8, 24, 40)), ("blue sky", (40, 2, 64, 12))]
    assert answers[2] == [("blue sky", (40, 4, 64, 12))]
    assert answers[4] == [("red car", (6, 8, 24, 40))]


def test_an_error_reaches_everyone_and_is_not_remembered(make: Any) -> None:
    finder, grounder, reader = make()
    pictures = [encoded(scene((64, 64), red=(2 * x, 8, 24, 40))) for x in range(3)]
    grounder.go_on.clear()
    grounder.error = BackendError("it broke")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(found, finder, reader, pictures[number]) for number in (0, 1, 2, 1)]
        while len(finder._searcher._together._waiting) < 2 or waiters(finder) < 1:
            pass
        grounder.go_on.set()
        errors = [each.exception() for each in asked]
    assert [(type(error), str(error)) for error in errors] == [(BackendError, "it broke")] * 4
    assert len({id(error) for error in errors}) == 4
    assert (finder.hits, finder.misses) == (0, 3)
    grounder.error = None
    assert described(found(finder, reader, pictures[1])) == [("red", (2, 8, 24, 40))]


def test_a_picture_that_cannot_be_decoded_is_no_backends_fault(make: Any) -> None:
    finder, grounder, reader = make()
    damaged = encoded(scene())[:80]
    for _ in range(2):
        with pytest.raises(PictureError):
            found(finder, reader, damaged)
    assert grounder.pictures == []


def test_a_large_jpeg_may_be_decoded_at_a_fraction(make: Any) -> None:
    """Boxes are in pixels of the whole picture all the same."""
    picture = encoded(scene((1024, 1024), red=(64, 128, 384, 640)), "jpeg")
    finder, _, reader = make(jpeg="scaled")
    sizes = []

    def find(whole: WholePicture) -> tuple[FoundObject, ...]:
        sizes.append(whole.decode(32).shape)
        return finder(whole, (), [()])[0]

    objects, steps = reader.parts_found(picture, find, whole=True)
    assert sizes == [(128, 128, 3)]
    (box,) = (each.box for each in objects)
    assert max(abs(a - b) for a, b in zip(box, (64, 128, 384, 640), strict=True)) <= 32
    assert [step().pixels.shape for step in steps] == [(224, 224, 3)] * 2


def test_boxes_too_elongated_for_a_crop_are_no_objects(make: Any) -> None:
    _, _, reader = make()
    whole = WholePicture(b"k", reader._spec, lambda _: (scene(), (96, 64)))
    assert whole.has_crop((0, 0, 500, 2))
    assert not whole.has_crop((0, 0, 2000, 1))


def test_every_rejection_names_its_own_file(ner_bundle: Path, tmp_path: Path) -> None:
    """Equal files are searched once, though not if they cannot be decoded."""
    damaged = encoded(scene())[:80]
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(damaged)
    path = add_grounder(Path(shutil.copytree(ner_bundle, tmp_path / "bundle")))
    tweets = [Tweet(words=["a"], image=tmp_path / f"{number}.png") for number in range(40)]
    with Pipeline.load(path, "onnxruntime-cpu", threads=8) as pipeline:
        outcomes = list(pipeline.stream(tweets))
        assert pipeline.finder is not None
        assert (pipeline.finder.hits, pipeline.finder.misses) == (0, 40)
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, Rejection)
        assert f"{tmp_path / str(number)}.png " in outcome.message


def test_who_waited_for_a_picture_that_failed_searches_its_own(make: Any) -> None:
    finder, grounder, reader = make()
    whole, begun, go_on = encoded(scene((64, 64), red=(4, 8, 24, 40))), Event(), Event()

    def interrupted(_: int) -> Any:
        begun.set()
        assert go_on.wait(60)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(4) as pool:
        key = reader._keys(EncodedPicture.read(whole, reader._spec, "full"), [None])[0]
        first = pool.submit(finder, WholePicture(key, reader._spec, interrupted), (), [()])
        assert begun.wait(60)
        others = [pool.submit(found, finder, reader, whole) for _ in range(3)]
        while waiters(finder) < 3:
            pass
        go_on.set()
        assert isinstance(first.exception(), KeyboardInterrupt)
        assert [described(other.result()) for other in others] == [[("red", (4, 8, 24, 40))]] * 3
    assert grounder.pictures == [1]
    assert (finder.hits, finder.misses) == (2, 2)


def test_a_search_under_another_threshold_is_not_remembered_for_this_one(make: Any) -> None:
    finder, grounder, reader = make()
    picture = encoded(scene((64, 64), red=(4, 8, 24, 40), blue=(0, 0, 8, 8)))
    grounder.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(found, finder, reader, picture)
        assert grounder.begun.wait(60)
        finder.threshold = 0.05
        grounder.go_on.set()
        assert described(first.result()) == [("red", (4, 8, 24, 40)), ("blue", (0, 0, 8, 8))]
    assert described(found(finder, reader, picture)) == [("red", (4, 8, 24, 40))]


@pytest.mark.parametrize("batch", [0, 9, 2.0, True])
def test_a_run_has_one_to_eight_pictures(make: Any, batch: Any) -> None:
    finder, _, _ = make()
    with pytest.raises(InputError, match="batch must be a whole number from 1 to 8, not"):
        finder.batch = batch
    assert finder.batch == 8


BOX = (0.25, 0.25, 0.5, 0.5)


@pytest.mark.parametrize(
    ("box", "score", "reason"),
    [
        (BOX, np.nan, "NaN or infinity"),
        (BOX, np.inf, "NaN or infinity"),
        (BOX, -np.inf, "NaN or infinity"),
        ((0.25, np.nan, 0.5, 0.5), 0.5, "NaN or infinity"),
        ((0.25, 0.25, np.inf, 0.5), 0.5, "NaN or infinity"),
        (BOX, 1.5, r"a score outside \[0, 1\]"),
        (BOX, -0.5, r"a score outside \[0, 1\]"),
    ],
)
def test_what_is_no_box_or_no_score_is_the_backends_fault(make: Any, box: Any, score: float, reason: str) -> None:
    finder, grounder, reader = make(words=("red",))
    grounder.answer = np.array([[box]], np.float32), np.array([[score]], np.float32)
    with pytest.raises(BackendError, match=f"the grounder of onnxruntime-cpu answered with {reason}"):
        found(finder, reader, scene((64, 64)))
    grounder.answer = None
    assert found(finder, reader, scene((64, 64), red=(4, 8, 24, 40)))[0].box == (4, 8, 24, 40)


@pytest.mark.parametrize(("score", "kept"), [(1.0005, 1.0), (1.0, 1.0), (0.75, 0.75)])
def test_a_score_that_rounding_took_beyond_one_is_one(make: Any, score: float, kept: float) -> None:
    finder, grounder, reader = make(words=("red",))
    grounder.answer = np.array([[BOX]], np.float32), np.array([[score]], np.float32)
    assert found(finder, reader, scene((64, 64))) == (FoundObject((16, 16, 32, 32), "red", kept),)


@pytest.mark.filterwarnings("error")
def test_a_huge_box_is_clipped(make: Any) -> None:
    finder, grounder, reader = make(words=("red",))
    grounder.answer = np.array([[(-3e38, 0.25, 3e38, 0.5)]], np.float32), np.array([[0.5]], np.float32)
    assert found(finder, reader, scene((64, 64))) == (FoundObject((0, 16, 64, 32), "red", 0.5),)
