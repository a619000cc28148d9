"""Pictures seen before: the same answers whatever the cache holds, and nothing decoded that it holds."""

import gc
import io
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvpnet_runtime import InputError, PictureError, Pipeline, Tweet
from hvpnet_runtime.bundle import Bundle, PictureSpec
from hvpnet_runtime.prefix_cache import PrefixCache
from hvpnet_runtime.preprocessing import encoded_picture, pictures
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.types import Result

pytestmark = pytest.mark.heavy


def encoded(seed: int, file_format: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def shown(folder: Path) -> list[Tweet]:
    """Whole pictures, crops and boxes, as bytes, paths, PIL images and arrays; most of them more than once."""
    for seed in range(4):
        (folder / f"{seed}.png").write_bytes(encoded(seed))
        (folder / f"again-{seed}.png").write_bytes(encoded(seed))
    image = Image.open(folder / "1.png")
    return [
        Tweet(text="Jordan was great", image=encoded(0), objects=[encoded(1), encoded(2), encoded(0)]),
        Tweet(text="Paris", image=folder / "0.png", boxes=[(0, 0, 30, 40), (5, 5, 64, 48)]),
        Tweet(text="so proud of Madison", image=folder / "again-1.png", objects=[image, np.asarray(image)]),
        Tweet(text="no picture"),
        Tweet(text="Chelsea", image=encoded(3), boxes=[(0, 0, 30, 40)]),
        Tweet(text="Georgia", image=encoded(0, "JPEG"), objects=[folder / "3.png"]),
    ]


def facts(results: Sequence[Result]) -> list[Any]:
    return [result.to_dict() for result in results]


@pytest.fixture
def pipeline(ner_bundle: Path) -> Iterator[Pipeline]:
    with Pipeline.load(ner_bundle) as loaded:
        yield loaded


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, nothing can be decoded any more, nor can a header be read."""

    def forbid() -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise AssertionError("decoded")

        for module in (pictures, encoded_picture):
            monkeypatch.setattr(module, "open_file", fail)
            monkeypatch.setattr(module, "decoded", fail)

    return forbid


def prefix_bytes(pipeline: Pipeline) -> int:
    pipeline([Tweet(text="a", image=encoded(99))])
    return pipeline.cache.nbytes


def test_answers_do_not_depend_on_the_cache(ner_bundle: Path, tmp_path: Path, pipeline: Pipeline) -> None:
    tweets, one = shown(tmp_path), prefix_bytes(pipeline)
    pipeline.cache.clear()
    with Pipeline.load(ner_bundle, cache_bytes=0) as without:
        expected = facts(without.run([without.prepare(tweet) for tweet in tweets]))
    assert facts(pipeline.run([pipeline.prepare(tweet) for tweet in tweets])) == expected  # cold
    warm = [pipeline.prepare(tweet) for tweet in tweets]
    assert facts(pipeline.run(warm)) == expected
    pipeline.cache.clear()
    assert facts(pipeline.run(warm)) == expected  # prepared when it was warm, run when it is not
    for limit in (0, one, 2 * one, 3 * one):  # 0 keeps nothing, the others forget again and again
        with Pipeline.load(ner_bundle, cache_bytes=limit) as tiny:
            for _ in range(3):
                found = [tiny([tweet])[0] for tweet in tweets]
                for mine, theirs in zip(facts(found), expected, strict=True):
                    assert mine["tags"] == theirs["tags"]
                    scores = [[entity["score"] for entity in each["entities"]] for each in (mine, theirs)]
                    np.testing.assert_allclose(*scores, rtol=1e-4)
            assert tiny.cache.nbytes <= limit


def test_a_stream_answers_to_the_last_digit_whatever_is_forgotten(ner_bundle: Path, pipeline: Pipeline) -> None:
    """What was known when a tweet was prepared depends on timing; what it is computed with must not."""
    limit = 6 * prefix_bytes(pipeline)
    order = np.random.default_rng(0).integers(0, 20, 120)
    tweets = [Tweet(text="Jordan", image=encoded(int(seed)), objects=[encoded(int(seed) + 5)]) for seed in order]
    answers = []
    for threads in (1, 4):
        with Pipeline.load(ner_bundle, cache_bytes=limit, threads=1) as streaming:
            streaming._threads = threads
            answers.append(facts(list(streaming.stream(tweets, 4))))
            answers.append([streaming.cache.hits, streaming.cache.misses])
    assert answers[:2] == answers[2:]


@pytest.mark.parametrize("on_bad_image", ["error", "substitute"])
def test_what_was_seen_is_not_decoded(
    ner_bundle: Path, tmp_path: Path, undecodable: Callable[[], None], on_bad_image: Any
) -> None:
    images = (Image.Image,)
    tweets = [tweet for tweet in shown(tmp_path) if not any(isinstance(each, images) for each in tweet.objects or ())]
    with Pipeline.load(ner_bundle, on_bad_image=on_bad_image) as pipeline:
        expected = facts(pipeline(tweets))
        hits, misses = pipeline.cache.hits, pipeline.cache.misses
        undecodable()
        assert facts(pipeline(tweets)) == expected
        assert pipeline.cache.misses == misses
        assert pipeline.cache.hits > hits
        # Only what was seen is known: another box, another file, and a picture that was seen as a part alone.
        for unseen in (
            Tweet(text="a", image=encoded(0), boxes=[(0, 0, 30, 41)]),
            Tweet(text="a", image=encoded(0) + b"\0"),
            Tweet(text="a", image=encoded(7)),
        ):
            with pytest.raises(AssertionError, match="decoded"):
                pipeline.prepare(unseen)


def test_preparing_counts_nothing_and_running_as_ever(pipeline: Pipeline) -> None:
    tweet = Tweet(text="a", image=encoded(0), objects=[encoded(1), encoded(0)])
    for _ in range(3):
        pipeline.prepare(tweet)
    assert (pipeline.cache.hits, pipeline.cache.misses) == (0, 0)
    pipeline([tweet])
    assert (pipeline.cache.hits, pipeline.cache.misses) == (0, 2)
    pipeline([tweet])
    assert (pipeline.cache.hits, pipeline.cache.misses) == (2, 2)


def test_one_file_under_two_names_is_one_picture(pipeline: Pipeline, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encoded(0))
    pipeline([Tweet(text="a", image=tmp_path / "a.png", objects=[tmp_path / "b.png", encoded(0)])])
    assert (len(pipeline.cache), pipeline.cache.misses) == (1, 1)
    seen = (tmp_path / "a.png").stat()
    (tmp_path / "a.png").write_bytes(encoded(1))
    os.utime(tmp_path / "a.png", ns=(seen.st_atime_ns, seen.st_mtime_ns))  # the name, the size and the date of before
    with Pipeline.load(pipeline.bundle.path) as fresh:
        changed = Tweet(text="Jordan was great", image=tmp_path / "a.png")
        assert facts(pipeline([changed])) == facts(fresh([changed]))
    assert pipeline.cache.misses == 2


def test_a_file_is_read_once(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded(0))
    opened, open_regular = [], pictures.open_regular

    def counted(path: Any) -> Any:
        opened.append(Path(path).name)
        return open_regular(path)

    monkeypatch.setattr(pictures, "open_regular", counted)
    tweet = Tweet(text="a", image=tmp_path / "a.png", boxes=[(0, 0, 20, 20), (0, 0, 30, 30)])
    for times in (1, 2):
        pipeline([tweet])
        assert opened == ["a.png"] * times


def test_the_box_matters(ner_bundle: Path, pipeline: Pipeline) -> None:
    boxes = [(0, 0, 30, 40), (0, 0, 31, 40), (1, 0, 30, 40)]
    parts = [pipeline.prepare(Tweet(text="a", image=encoded(0), boxes=[box])).pictures for box in boxes]
    assert len({each[1].key for each in parts if each[1]}) == 3
    assert len({each[0].key for each in parts if each[0]}) == 1
    rounded = pipeline.prepare(Tweet(text="a", image=encoded(0), boxes=np.array([[0.2, -0.3, 29.8, 40.4]]))).pictures
    assert rounded[1]
    assert parts[0][1]
    assert rounded[1].key == parts[0][1].key
    assert np.array_equal(rounded[1].pixels, parts[0][1].pixels)


def test_a_picture_that_is_refused_is_never_known(pipeline: Pipeline) -> None:
    cut = encoded(0, "JPEG", (400, 300))[:-4000]
    for _ in range(3):
        with pytest.raises(PictureError, match="truncated or corrupt"):
            pipeline([Tweet(text="a", image=cut)])
        with pytest.raises(PictureError, match="outside the picture"):
            pipeline([Tweet(text="a", image=encoded(0), boxes=[(0, 0, 65, 48)])])
        with pytest.raises(PictureError, match="four finite numbers"):
            pipeline([Tweet(text="a", image=encoded(0), boxes=[(0, 0, 65)])])
    pipeline([Tweet(text="a", image=encoded(0))])
    with pytest.raises(PictureError, match="outside the picture"):
        pipeline([Tweet(text="a", image=encoded(0), boxes=[(0, 0, 65, 48)])])


def test_a_preparer_with_other_limits_knows_other_pictures(pipeline: Pipeline) -> None:
    tweet = Tweet(text="a", image=encoded(0, size=(400, 300)))
    strict = Preparer(pipeline.bundle, max_pixels=400 * 300 - 1, known=pipeline.cache)
    loose = Preparer(pipeline.bundle, max_pixels=400 * 300, known=pipeline.cache)
    pipeline([tweet])
    pipeline.run([loose(tweet)])
    assert pipeline.cache.misses == 2
    with pytest.raises(PictureError, match="too many pixels"):
        strict(tweet)


def test_a_substitute_is_the_picture_that_was_taken(ner_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "inf.png").write_bytes(encoded(0))
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    box = (0, 0, 30, 40)
    with Pipeline.load(ner_bundle, on_bad_image="substitute") as pipeline:
        expected = facts(pipeline([Tweet(text="Jordan", image=encoded(0), boxes=[box])]))
        for _ in range(2):
            for name in ("absent.jpg", "bad.jpg"):
                assert facts(pipeline([Tweet(text="Jordan", image=tmp_path / name, boxes=[box])])) == expected
        assert pipeline.cache.misses == 2
        with pytest.raises(PictureError, match=r"bad\.jpg: box .* four finite numbers"):  # which no substitute mends
            pipeline([Tweet(text="Jordan", image=tmp_path / "bad.jpg", boxes=[(0, 0)])])
        (tmp_path / "inf.png").write_bytes(b"no picture either")
        with pytest.raises(PictureError, match=r"nor can its substitute be used: .*inf\.png"):
            pipeline([Tweet(text="Jordan", image=tmp_path / "bad.jpg")])


def test_what_is_prepared_needs_no_cache_and_travels(ner_bundle: Path, pipeline: Pipeline) -> None:
    tweet = Tweet(text="Jordan was great", image=encoded(0), objects=[encoded(1)])
    expected = facts(pipeline([tweet]))
    late, early = pipeline.prepare(tweet), Preparer(pipeline.bundle)(tweet)
    assert [each and each.is_decoded for each in late.pictures] == [False, False, None, None]
    assert [each and each.is_decoded for each in early.pictures] == [True, True, None, None]
    assert [each and each.key for each in late.pictures] == [each and each.key for each in early.pictures]
    assert late.nbytes == early.nbytes == 2 * 224 * 224 * 3 + len(encoded(0)) + len(encoded(1))
    for prepared in (late, early):
        travelled: Prepared = pickle.loads(pickle.dumps(prepared))
        assert facts(pipeline.run([travelled])) == expected
        with Pipeline.load(ner_bundle) as other:
            assert facts(other.run([travelled])) == expected


def test_asking_what_is_held_is_no_use_of_it() -> None:
    cache = PrefixCache(16)
    one, two, three = (np.full(2, value, np.float32) for value in range(3))
    cache.put(b"one", one)
    cache.put(b"two", two)
    assert b"one" in cache
    assert (cache.hits, cache.misses) == (0, 0)
    cache.put(b"three", three)
    assert b"one" not in cache
    assert b"two" in cache


def test_jpeg_is_full_or_scaled(ner_bundle: Path) -> None:
    for value in ("half", None, 2, ["full"]):
        with pytest.raises(InputError, match="jpeg must be full or scaled, not"):
            Pipeline.load(ner_bundle, jpeg=value)  # type: ignore[arg-type]


def test_full_and_scaled_pictures_are_apart(ner_bundle: Path) -> None:
    large = Tweet(text="Jordan was great", image=encoded(0, "JPEG", (1100, 1030)))
    with Pipeline.load(ner_bundle) as full, Pipeline.load(ner_bundle, jpeg="scaled") as scaled:
        (whole,), (part,) = ([*pipeline.prepare(large).pictures][:1] for pipeline in (full, scaled))
        assert whole
        assert part
        assert whole.key != part.key
        assert not np.array_equal(whole.pixels, part.pixels)
        for _ in range(2):
            scaled.run([full.prepare(large), scaled.prepare(large)])
        assert (scaled.cache.hits, scaled.cache.misses) == (2, 2)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one name whenever a file is decoded."""
    names: list[str] = []
    decode = encoded_picture.decoded

    def noted(image: Image.Image, name: str, *rest: Any) -> Image.Image:
        names.append(name)
        return decode(image, name, *rest)

    monkeypatch.setattr(encoded_picture, "decoded", noted)
    return names


def test_a_file_that_many_tweets_show_at_once_is_decoded_once(ner_bundle: Path, decodings: list[str]) -> None:
    prepare, file = Preparer(Bundle.load(ner_bundle), threads=4), encoded(7)
    tweet = Tweet(text="Paris", image=file, objects=[bytes(bytearray(file)), file, file])
    with ThreadPoolExecutor(4) as threads:
        prepared = list(threads.map(prepare, [tweet] * 32))
    assert len(decodings) == 1
    pixels = [picture.pixels for each in prepared for picture in each.pictures if picture is not None]
    assert len(pixels) == 128
    assert all(each is pixels[0] for each in pixels)
    np.testing.assert_array_equal(pixels[0], pictures.load_pixels(file, PictureSpec()))
    del prepared, pixels
    gc.collect()
    prepare(tweet)
    assert len(decodings) == 2  # nothing is kept that nobody uses


def test_boxes_of_one_file_are_cut_of_one_decoding(ner_bundle: Path, decodings: list[str]) -> None:
    prepare, file = Preparer(Bundle.load(ner_bundle)), encoded(7)
    for left in range(9):
        (whole, part, *_) = prepare(Tweet(text="Paris", image=file, boxes=[(left, 0, 40, 40)])).pictures
        assert whole is not None
        assert part is not None
        np.testing.assert_array_equal(part.pixels, pictures.load_pixels(file, PictureSpec(), (left, 0, 40, 40)))
    assert len(decodings) == 1
    prepare.forget()
    prepare(Tweet(text="Paris", image=file, boxes=[(0, 0, 30, 30)]))
    assert len(decodings) == 2


def test_want_of_memory_is_not_remembered(ner_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, tweet = Preparer(Bundle.load(ner_bundle)), Tweet(text="Paris", image=encoded(7))

    def too_much(*_: Any, **__: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "convert", too_much)
        patched.setattr(Image.Image, "load", too_much)
        with pytest.raises((PictureError, MemoryError)):
            prepare(tweet)
    assert prepare(tweet).pictures[0] is not None


def test_a_file_that_was_refused_is_not_decoded_again(ner_bundle: Path, decodings: list[str], tmp_path: Path) -> None:
    prepare, cut = Preparer(Bundle.load(ner_bundle)), bytearray(encoded(7, size=(400, 300)))
    cut[200_000:200_100] = bytes(100)
    cut = bytes(cut)
    for _ in range(3):
        with pytest.raises(PictureError, match="picture <bytes>"):
            prepare(Tweet(text="Paris", image=cut))
        with pytest.raises(PictureError, match="picture <bytes>"):
            prepare(Tweet(text="Paris", image=cut, boxes=[(0, 0, 9, 9)]))
    assert decodings == ["<bytes>"]
    (tmp_path / "cut.png").write_bytes(cut)
    with pytest.raises(PictureError, match=r"cut\.png"):  # a message names the file that was given
        prepare(Tweet(text="Paris", image=tmp_path / "cut.png"))
