"""The stream: order, laziness, batches of similar length, and what becomes of rows that cannot be prepared."""

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hvpnet_runtime.stream
from hvpnet_runtime import BackendError, Mention, PictureError, Pipeline, Rejection, RelationResult, Tweet
from hvpnet_runtime.preprocessing.encode_text import Encoding, EntityWindow
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.preprocessing.tweet_pictures import PreparedPicture
from hvpnet_runtime.stream import WINDOW_BATCHES, TweetRow, stream

NOTHING = Mention("", 0, 0)


def answer_of(pieces: int) -> RelationResult:
    return RelationResult(pieces, "", 0.0, NOTHING, NOTHING, 0)


def prepared(tweet: Tweet, pixels: int = 0) -> Prepared:
    """A tweet whose id is its number of pieces."""
    encoding = Encoding(tuple(range(tweet.id)), (), (), 0)
    picture = PreparedPicture(b"", pixels, np.zeros((pixels, 1, 1), np.uint8))
    return Prepared(tweet, "", (), (EntityWindow(encoding, 0, (0, 0)),), (), (picture, None))


def refuse_zero(tweet: Tweet) -> Prepared:
    if not tweet.id:
        raise PictureError("no\npicture")
    return prepared(tweet)


class Recorder:
    """A `start` whose batches answer with the tweets' ids, and that notes the lengths of every batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, batch: Sequence[Prepared]) -> Callable[[], list[Any]]:
        self.batches.append([each.length for each in batch])
        return lambda: [answer_of(each.tweet.id) for each in batch]


def rows(lengths: Any) -> Iterator[TweetRow]:
    return (TweetRow(number, Tweet(text="", id=length)) for number, length in enumerate(lengths))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 30), max_size=120), st.integers(1, 5), st.integers(1, 3))
def test_order_rejections_and_batches(lengths: list[int], batch_size: int, threads: int) -> None:
    run = Recorder()
    outcomes = list(stream(rows(lengths), refuse_zero, run, batch_size, threads))
    expected = [
        RelationResult(length, "", 0.0, NOTHING, NOTHING, 0)
        if length
        else Rejection(row, 0, "PictureError", "no picture")
        for row, length in enumerate(lengths)
    ]
    assert outcomes == expected
    window, found = batch_size * WINDOW_BATCHES, []
    for start in range(0, len(lengths), window):
        own = sorted(filter(None, lengths[start : start + window]), reverse=True)
        found += [own[first : first + batch_size] for first in range(0, len(own), batch_size)]
    assert sorted(run.batches) == sorted(found)


def test_reads_no_further_than_a_window_ahead() -> None:
    read: list[int] = []

    def endless() -> Iterator[TweetRow]:
        for number in count():
            read.append(number)
            yield TweetRow(number, Tweet(text="", id=1 + number % 7))

    answers = stream(endless(), prepared, Recorder(), 2, 2)
    assert not read
    assert [answer.id for answer in islice(answers, 3)] == [1, 2, 3]
    assert len(read) <= 2 * 2 * WINDOW_BATCHES
    before = len(read)
    answers.close()  # type: ignore[attr-defined]
    assert len(read) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hvpnet-stream")]


def test_prepares_while_the_backend_runs() -> None:
    """The first run waits until a tweet beyond its window is being prepared."""
    later = threading.Event()

    def prepare(tweet: Tweet) -> Prepared:
        if tweet.text == "later":
            later.set()
        return prepared(tweet)

    def start(batch: Sequence[Prepared]) -> Callable[[], list[Any]]:
        assert later.wait(30)
        return lambda: [each.tweet.id for each in batch]

    given = [TweetRow(row, Tweet(text="later" if row >= WINDOW_BATCHES else "now", id=3)) for row in range(40)]
    assert list(stream(given, prepare, start, 1, 1)) == [3] * 40


def test_two_batches_are_under_way_and_answers_stay_in_order() -> None:
    """Each waits for the other to be under way, and the second of them comes back first; beginnings are in order."""
    begun: list[list[int]] = []
    together, finished = threading.Barrier(2), [threading.Event() for _ in range(4)]
    starter = threading.get_ident()

    def start(batch: Sequence[Prepared]) -> Callable[[], list[Any]]:
        assert threading.get_ident() == starter
        number = len(begun)
        begun.append([each.tweet.id for each in batch])

        def finish() -> list[Any]:
            assert threading.get_ident() != starter
            together.wait(30)
            if number % 2 == 0:
                assert finished[number + 1].wait(30)
            finished[number].set()
            return [answer_of(each.tweet.id) for each in batch]

        return finish

    lengths = [3, 9, 5, 7, 4, 8, 6, 2]
    outcomes = list(stream(rows(lengths), prepared, start, 2, 2, lanes=2))
    assert outcomes == [answer_of(length) for length in lengths]
    assert begun == [[3, 2], [9, 8], [5, 4], [7, 6]]  # by the first tweet that is due
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hvpnet-lane")]


def test_an_error_in_a_lane_reaches_who_reads_the_answers() -> None:
    def start(batch: Sequence[Prepared]) -> Callable[[], list[Any]]:
        def finish() -> list[Any]:
            if batch[0].tweet.id == 5:
                raise BackendError("the device is lost")
            return [answer_of(each.tweet.id) for each in batch]

        return finish

    outcomes = stream(rows([9, 8, 5, 4, 3]), prepared, start, 1, 1, lanes=2)
    assert list(islice(outcomes, 2)) == [answer_of(9), answer_of(8)]
    with pytest.raises(BackendError, match="the device is lost"):
        next(outcomes)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hvpnet-lane")]


def test_pictures_close_a_window_and_bound_what_is_prepared_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hvpnet_runtime.stream, "WINDOW_BYTES", 1000)
    run, waiting, most = Recorder(), 0, 0
    lock = threading.Lock()

    def prepare(tweet: Tweet) -> Prepared:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        return prepared(tweet, pixels=300)

    def count_and_run(batch: Sequence[Prepared]) -> Callable[[], list[Any]]:
        nonlocal waiting
        with lock:
            waiting -= len(batch)
        return run(batch)

    assert len(list(stream(rows([5, 9] * 30), prepare, count_and_run, 8, 1))) == 60
    assert [sorted(batch) for batch in run.batches] == [[5, 5, 9, 9]] * 15  # 4 x 300 bytes are more than 1000
    assert most <= 4 + 4 + 1  # one window in hand and one ahead


def test_tweets_without_pictures_do_not_open_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rejection and a text come first, and say nothing about the size of what follows."""
    monkeypatch.setattr(hvpnet_runtime.stream, "WINDOW_BYTES", 1000)
    given: list[int] = []  # to the thread, which prepares all of them sooner or later

    def lengths() -> Iterator[int]:
        for length in (0, 1, *[5] * 120):
            given.append(length)
            yield length

    def prepare(tweet: Tweet) -> Prepared:
        return prepared(refuse_zero(tweet).tweet, pixels=0 if tweet.id == 1 else 300)

    answers = stream(rows(lengths()), prepare, Recorder(), 8, 1)
    next(answers)
    assert len(given) <= 2 + 4 + 4 + 8
    answers.close()  # type: ignore[attr-defined]


def test_a_failing_source_is_answered_as_far_as_it_came() -> None:
    def broken() -> Iterator[TweetRow]:
        yield from rows([4, 2, 7])
        raise OSError("the disk is gone")

    answers = stream(broken(), prepared, Recorder(), 2, 2)
    assert [next(answers).id for _ in range(3)] == [4, 2, 7]  # type: ignore[union-attr]
    with pytest.raises(OSError, match="the disk is gone"):
        next(answers)


def test_want_of_memory_is_no_rejection() -> None:
    def prepare(tweet: Tweet) -> Prepared:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(stream(rows([1]), prepare, Recorder(), 2, 2))


def test_whatever_is_raised_rejects_the_row() -> None:
    def prepare(tweet: Tweet) -> Prepared:
        raise KeyError(tweet.id)

    assert list(stream(rows([7]), prepare, Recorder(), 2, 2)) == [Rejection(0, 7, "KeyError", "7")]


def test_an_id_that_cannot_be_read_rejects_no_other_row() -> None:
    class Damaged(TweetRow):
        def tweet(self) -> Tweet:
            raise ValueError("no tweet")

        def id(self) -> Any:
            raise OverflowError("no id")

    given = [Damaged(0, Tweet()), TweetRow(1, Tweet(text="", id=3))]
    assert list(stream(given, prepared, Recorder(), 4, 2)) == [
        Rejection(0, None, "ValueError", "no tweet"),
        answer_of(3),
    ]


def test_the_pipeline_streams_as_it_answers_one_by_one(ner_bundle: Path) -> None:
    words = ["Jordan", "was", "great", "today", "with", "Paris", "and", "Chelsea"]
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    tweets = [
        Tweet(words=words[: 1 + row % len(words)], image=picture if row % 3 else None, id=row) for row in range(30)
    ]
    tweets[4], tweets[9] = Tweet(text="", id=4), Tweet(text="x", image=b"no picture", id=9)
    with Pipeline.load(ner_bundle) as pipeline:
        outcomes = list(pipeline.stream(iter(tweets), batch_size=4))
        for row, (tweet, outcome) in enumerate(zip(tweets, outcomes, strict=True)):
            assert outcome.id == row
            if row in (4, 9):
                assert isinstance(outcome, Rejection)
                assert (outcome.row, outcome.type) == (row, "TextError" if row == 4 else "PictureError")
                assert outcome.to_dict()["error"] == {"type": outcome.type, "message": outcome.message}
            else:
                (alone,) = pipeline([tweet])
                assert outcome.tags == alone.tags  # type: ignore[union-attr]
        with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1, not 0"):
            pipeline.stream([], batch_size=0)
        for number in range(3):
            with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1, not 0"):
                pipeline([Tweet(text="a b")] * number, batch_size=0)
