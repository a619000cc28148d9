"""How tweets are answered, whatever the answers are: a list or a stream of them, prepared ahead and in batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import index
from typing import Generic, TypeVar

from hvpnet_runtime.errors import InputError, brief
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.processes import Origin
from hvpnet_runtime.stream import Row, TweetRow, stream
from hvpnet_runtime.types import Rejection, Tweet

BATCH_SIZE = 32
"""Default of the tweets in one batch."""

Answer = TypeVar("Answer")


class Answering(ABC, Generic[Answer]):
    """Answers tweets, which `prepare` prepares one by one and `start` answers in batches. Thread-safe.

    Args:
        threads: that prepare.
        lanes: batches under way at the same time.
    """

    def __init__(self, threads: int, lanes: int) -> None:
        self.threads, self._lanes = threads, lanes
        self._origin = Origin()

    @abstractmethod
    def prepare(self, tweet: Tweet) -> Prepared:
        """Do for one tweet what needs no backend, but for the grounder's where objects are to be found.

        Raises:
            InputError: the tweet cannot be processed.
            BackendError: the grounder failed.
        """

    @abstractmethod
    def start(self, batch: Sequence[Prepared]) -> Callable[[], list[Answer]]:
        """Begin a batch, as `run` does; what is returned does the rest, and may do so elsewhere.

        Raises:
            InputError: as `run`.
            BackendError: as `run`, and so does what is returned.
        """

    def __call__(self, tweets: Iterable[Tweet], batch_size: int = BATCH_SIZE) -> list[Answer]:
        """Extract from tweets: one result each, in order.

        Args:
            tweets: any number; `stream` neither stops at one that cannot be processed nor holds them all.
            batch_size: tweets per batch, see `run`.

        Raises:
            InputError: a tweet cannot be processed, and the message says which; or `tweets` is none, or the batch size
                below 1.
            BackendError: the backend failed.
        """
        tweets = list(many(tweets))
        outcomes = self.stream(tweets, batch_size)
        if len(tweets) == 1:  # a thread would only cost time
            return self.run([self._prepare(0, tweets[0])])
        results: list[Answer] = []
        for outcome in outcomes:
            if isinstance(outcome, Rejection):
                self._prepare(outcome.row, tweets[outcome.row])  # raises what rejected it
                raise InputError(f"tweet {outcome.row}: {outcome.message}")
            results.append(outcome)
        return results

    def stream(self, tweets: Iterable[Tweet], batch_size: int = BATCH_SIZE) -> Iterator[Answer | Rejection]:
        """Extract from any number of tweets: one result or rejection each, in order.

        Tweets are read lazily and prepared ahead in threads while the backend runs. Texts are batched by length within
        a window of 16 batches, or fewer where their pictures take more than 64 MiB.

        Args:
            tweets: any iterable; a tweet that cannot be processed becomes a `Rejection`, whose `row` counts from 0.
            batch_size: tweets per batch, see `run`.

        Raises:
            InputError: `tweets` is one tweet, text or dict, or the batch size below 1.
            BackendError: the backend failed.
        """
        return self.stream_rows((TweetRow(number, tweet) for number, tweet in enumerate(many(tweets))), batch_size)

    def stream_rows(self, rows: Iterable[Row], batch_size: int = BATCH_SIZE) -> Iterator[Answer | Rejection]:
        """As `stream`, for rows still to be read, such as lines of a file; what reading raises rejects them."""
        batch_size = whole_number("batch_size", batch_size, 1)
        self._origin.check()
        return stream(rows, self.prepare, self.start, batch_size, self.threads, self._lanes)

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Run prepared tweets as one batch: one result each, in order.

        Raises:
            InputError: `batch` is no list of what `prepare` returned.
            BackendError: the backend failed, or answered with NaN.
        """
        return self.start(batch)()

    def _prepare(self, row: int, tweet: Tweet) -> Prepared:
        try:
            return self.prepare(tweet)
        except InputError as error:
            given = getattr(tweet, "id", None)
            name = f"tweet {row}" if given is None else f"tweet {row} (id {brief(given)})"
            raise type(error)(f"{name}: {error}") from error


def check_prepared(batch: object, kind: type[Prepared]) -> None:
    """Refuse a batch that is no list of prepared tweets.

    Raises:
        InputError: it is none.
    """
    if not isinstance(batch, Sequence) or not all(isinstance(each, kind) for each in batch):
        raise InputError("run takes a list of what prepare returned; for Tweets, call the pipeline itself")


def whole_number(name: str, value: object, least: int) -> int:
    """A whole number of at least so much.

    Raises:
        InputError: the value is none; the message calls it by this name.
    """
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number, at least {least}, not {brief(value)}")
    return number


def many(tweets: Iterable[Tweet]) -> Iterable[Tweet]:
    """The tweets, if they are several.

    Raises:
        InputError: they are one tweet, text or dict.
    """
    if isinstance(tweets, Tweet | str | bytes | Mapping) or not isinstance(tweets, Iterable):
        raise InputError(f"give a list of Tweets, or any other iterable of them, not {type(tweets).__name__}")
    return tweets
