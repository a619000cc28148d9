"""One stream of answers: tweets are prepared ahead in threads while the backend runs, and batched by length.

Texts of a batch are padded to its longest. Within a window of tweets, batches are therefore made of texts of similar
length; answers come in the order of the tweets all the same. Which tweets make a window depends on them alone, never on
timing, so that the same tweets give the same answers to the last digit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.types import Rejection, Tweet

WINDOW_BATCHES = 16
"""Batches of a window at most: on the test split of Twitter-2015, batches of 32 in order are padded to 59.8 pieces on
average, sorted within 16 batches to 44.2."""

WINDOW_BYTES = 64 * 2**20
"""Bytes of a window's pictures, their pixels and their files, beyond which it is closed. As many again may be
prepared ahead, and at most a batch more."""

Outcome: TypeAlias = Prepared | Rejection
Answer = TypeVar("Answer")
Start: TypeAlias = Callable[[Sequence[Prepared]], Callable[[], Sequence[Answer]]]
"""Begins a batch; what it returns does the rest, in any thread."""


class Row(Protocol):
    """A tweet of a stream, which may still have to be read."""

    @property
    def number(self) -> int:
        """The place of the row, as a rejection names it."""
        ...

    def tweet(self) -> Tweet:
        """The tweet; whatever this raises rejects the row."""
        ...

    def id(self) -> Any:  # noqa: ANN401
        """The tweet's id for a rejection, or None where it cannot be read."""
        ...


@dataclass(frozen=True)
class TweetRow:
    """A tweet that is there; a `Row`."""

    number: int
    given: Tweet

    def tweet(self) -> Tweet:
        """See `Row`."""
        return self.given

    def id(self) -> Any:  # noqa: ANN401  whatever the tweet has
        """See `Row`."""
        return getattr(self.given, "id", None)


def prepare_row(prepare: Callable[[Tweet], Prepared], row: Row) -> Outcome:
    """Prepare a row. Whatever is wrong with it must neither stop a run nor vanish."""
    try:
        return prepare(row.tweet())
    except (MemoryError, BackendError):  # the grounder's, where objects are found
        raise  # says nothing about the row
    except Exception as error:
        return Rejection.of(row.number, _id_of(row), error)


def _id_of(row: Row) -> Any:  # noqa: ANN401  whatever the row says
    try:
        return row.id()
    except MemoryError:
        raise
    except Exception:  # the row is rejected already, for the reason that counts
        return None


def stream(
    rows: Iterable[Row],
    prepare: Callable[[Tweet], Prepared],
    start: Start[Answer],
    batch_size: int,
    threads: int,
    lanes: int = 1,
) -> Iterator[Answer | Rejection]:
    """Answer rows: one result or rejection each, in order.

    Args:
        rows: read in this thread, no further than a window ahead. If reading them fails, those read before are answered
            first.
        prepare: called in `threads` threads.
        start: called in this thread, with at most `batch_size` tweets, for one batch after the other.
        batch_size: tweets of a batch.
        threads: that prepare.
        lanes: batches under way at the same time. A single one is run in this thread, several in threads of theirs.
    """
    pool = ThreadPoolExecutor(threads, "hvpnet-stream")
    running = ThreadPoolExecutor(lanes, "hvpnet-lane") if lanes > 1 else None
    try:
        most, most_unfinished = WINDOW_BATCHES * batch_size, max(2 * threads, batch_size)
        ahead = _Ahead(pool, lambda row: prepare_row(prepare, row), rows, most, most_unfinished)
        while window := ahead.window():
            yield from _answers(window, _Lanes(start, running, lanes), batch_size, ahead.top_up)
    finally:
        if running is not None:
            running.shutdown(cancel_futures=True)
        pool.shutdown(cancel_futures=True)


class _Lanes(Generic[Answer]):
    """Runs batches one after the other, some of them ahead in threads.

    Args:
        start: begins a batch.
        pool: of the threads; None to run every batch when its results are asked for, in the thread that asks.
        most: batches under way at the same time.
    """

    def __init__(self, start: Start[Answer], pool: ThreadPoolExecutor | None, most: int) -> None:
        self._start, self._pool, self._most = start, pool, most

    def run(self, batches: Iterable[Sequence[Prepared]]) -> Iterator[Sequence[Answer]]:
        """The results of every batch, in order. Batches are read no earlier than they begin."""
        if self._pool is None:
            yield from (self._start(batch)() for batch in batches)
            return
        under_way: deque[Future[Sequence[Answer]]] = deque()
        for batch in batches:
            if len(under_way) == self._most:
                yield under_way.popleft().result()
            under_way.append(self._pool.submit(self._start(batch)))
        while under_way:
            yield under_way.popleft().result()


def _answers(
    window: list[Any], lanes: _Lanes[Answer], batch_size: int, between: Callable[[], None]
) -> Iterator[Answer | Rejection]:
    """Batches are run in the order in which their first tweets are due, and results take the tweets' places."""
    places = [place for place, outcome in enumerate(window) if isinstance(outcome, Prepared)]
    places.sort(key=lambda place: window[place].length, reverse=True)
    batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    batches.sort(key=min)
    results = zip(batches, lanes.run([window[place] for place in batch] for batch in batches), strict=True)
    for place in range(len(window)):
        while isinstance(window[place], Prepared):
            batch, answers = next(results)
            for other, answer in zip(batch, answers, strict=True):
                window[other] = answer
            between()
        yield window[place]


class _Ahead:
    """Rows that are being prepared, in order: at most a window of them, and of their pixels."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        prepare: Callable[[Row], Outcome],
        rows: Iterable[Row],
        most: int,
        most_unfinished: int,
    ) -> None:
        self._pool, self._prepare, self._rows, self._most = pool, prepare, iter(rows), most
        self._waiting: deque[Future[Outcome]] = deque()
        self._nbytes, self._largest, self._unfinished, self._lock = 0, 0, 0, Lock()
        self._most_unfinished = most_unfinished
        self._origin = Origin()
        self._ended = False

    def window(self) -> list[Outcome]:
        """The next tweets, as many as one window holds; none at the end. Raises what ended the rows in their place.

        Raises:
            BackendError: this process was forked from the one that began the stream.
        """
        self._origin.check()
        window: list[Outcome] = []
        nbytes = 0
        while len(window) < self._most and nbytes < WINDOW_BYTES:
            self.top_up(least=1)
            if not self._waiting or (window and self._waiting[0].exception()):
                break
            outcome = self._waiting.popleft().result()
            window.append(outcome)
            nbytes += _nbytes(outcome)
            with self._lock:
                self._nbytes -= _nbytes(outcome)
        return window

    def top_up(self, least: int = 0) -> None:
        """Hand rows to the threads until they have enough to do."""
        self._origin.check()
        while not self._ended and (
            len(self._waiting) < least or (len(self._waiting) < self._most and self._has_room())
        ):
            try:
                row = next(self._rows)
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._ended = True
                failure: Future[Outcome] = Future()
                failure.set_exception(error)
                self._waiting.append(failure)
            else:
                with self._lock:
                    self._unfinished += 1
                self._waiting.append(self._pool.submit(self._counted, row))

    def _counted(self, row: Row) -> Outcome:
        outcome = self._prepare(row)
        with self._lock:
            self._unfinished -= 1
            self._nbytes += _nbytes(outcome)
            self._largest = max(self._largest, _nbytes(outcome))
        return outcome

    def _has_room(self) -> bool:
        """Unfinished rows count as much as the largest yet. They are few, as the next may have more pictures."""
        with self._lock:
            reserved = self._nbytes + self._unfinished * self._largest
            return self._unfinished < self._most_unfinished and reserved < WINDOW_BYTES


def _nbytes(outcome: Outcome) -> int:
    return outcome.nbytes if isinstance(outcome, Prepared) else 0
