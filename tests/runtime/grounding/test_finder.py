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

from hvpnet_runtime import BackendError, Bundle, Mention, PictureError
from hvpnet_runtime.backends import load_backend
from hvpnet_runtime.grounding.finder import ObjectFinder
from hvpnet_runtime.preprocessing.tweet_pictures import PictureReader, WholePicture
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
        self.begun, self.go_on, self.error = Event(), Event(), None
        self.go_on.set()

    def find_objects(self, images: np.ndarray, queries: np.ndarray) -> Any:
        self.pictures.append(len(images))
        self.begun.set()
        assert self.go_on.wait(60)
        if self.error is not None:
            raise self.error
        return self._grounder.find_objects(images, queries)

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
    objects, _ = reader.parts_found(picture, lambda whole: finder(whole, words, mentions), whole=True)
    return objects


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
        while len(finder._together._waiting) < 4 or finder.hits < 1:
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
        while len(finder._together._waiting) < 2 or finder.hits < 1:
            pass
        grounder.go_on.set()
        for each in asked:
            with pytest.raises(BackendError, match="it broke"):
                each.result()
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
    """Its boxes are in pixels of the picture all the same."""
    picture = encoded(scene((1024, 1024), red=(64, 128, 384, 640)), "jpeg")
    finder, _, reader = make(jpeg="scaled")
    sizes = []

    def find(whole: WholePicture) -> tuple[FoundObject, ...]:
        sizes.append(whole.decode(32).shape)
        return finder(whole, (), ())

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
