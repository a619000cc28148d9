"""The tweets that are timed are exactly what their case says."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from hvpnet.bench.workload import FOUND, PICTURE_SIZE, Case, Workload, whole_words
from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.pictures import digest, load_pixels, open_picture
from hvpnet_runtime.types import Tweet


@pytest.fixture(params=["ner", "re"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_bundle")


@pytest.fixture
def workload(bundle: Path) -> Workload:
    return Workload(bundle)


def digests(tweet: Tweet) -> list[bytes]:
    pictures = [picture for picture in (tweet.image, *tweet.objects) if picture is not None]
    return [digest(load_pixels(picture, PictureSpec())) for picture in pictures]


@pytest.mark.parametrize("length", [10, 32, 64])
def test_length_is_exact(bundle: Path, workload: Workload, length: int) -> None:
    with Pipeline.load(bundle) as pipeline:
        for tweet in workload.tweets(Case(3, length), number=1):
            (encoding,) = pipeline.prepare(tweet).encodings
            assert len(encoding.input_ids) == length
            assert encoding.cut_words == 0


def test_whole_words(bundle: Path) -> None:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    words = whole_words(tokenizer)
    assert words == sorted(set(words))
    assert all(len(tokenizer.encode(word, add_special_tokens=False).ids) == 1 for word in words)


def test_pictures_have_their_size(workload: Workload) -> None:
    (tweet,) = workload.tweets(Case(1, 16), number=0)
    assert {open_picture(picture, PictureSpec()).size for picture in (tweet.image, *tweet.objects)} == {PICTURE_SIZE}


@pytest.mark.parametrize(
    ("pictures", "new", "seen"),
    [("all new", 4, 0), ("one new, three seen", 1, 3), ("one new, no objects", 1, 0), ("all seen", 0, 4)],
)
def test_what_is_seen_again(workload: Workload, pictures: str, new: int, seen: int) -> None:
    case = Case(2, 16, pictures)
    before = [each for number in (3, 4) for tweet in workload.tweets(case, number) for each in digests(tweet)]
    for tweet in workload.tweets(case, number=5):
        shown = digests(tweet)
        assert len(set(shown)) == len(shown) == new + seen
        assert sum(each in before for each in shown) == seen


def test_objects_that_are_to_be_found_are_not_given(workload: Workload) -> None:
    for tweet in workload.tweets(Case(2, 16, FOUND), number=5):
        assert tweet.image is not None
        assert tweet.objects is None
    assert [tweet.objects for tweet in workload.tweets(Case(1, 16, "one new, no objects"), number=5)] == [()]


def test_cases_of_one_round_do_not_share_new_pictures(workload: Workload) -> None:
    shown = [
        each
        for pictures in ("all new", "one new, no objects")
        for tweet in workload.tweets(Case(2, 16, pictures), number=7)
        for each in digests(tweet)
    ]
    assert len(set(shown)) == len(shown) == 10


def test_the_same_tweets_everywhere(bundle: Path, workload: Workload) -> None:
    other = Workload(bundle)
    assert workload.tweets(Case(2, 16), 9) == other.tweets(Case(2, 16), 9)
