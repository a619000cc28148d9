"""How much one ingress replica takes in at a time, and that it takes in no more before it stops."""

from collections.abc import Iterator
from contextlib import contextmanager

from hvpnet_runtime.serving.errors import OverloadedError, UnavailableError
from hvpnet_runtime.serving.settings import Limits


class Admission:
    """Counts what came in and was not answered yet: tweets, and bytes of bodies.

    Args:
        limits: `queue` and `queue_bytes` count here.

    Attributes:
        closed: nothing more is taken in.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.tweets, self.bytes = limits, 0, 0
        self.closed = False

    def close(self) -> int:
        """Take nothing more in; how many tweets are in hand still."""
        self.closed = True
        return self.tweets

    @contextmanager
    def admit(self) -> Iterator["Share"]:
        """Count a request in as one tweet, which it has at least, and out with all that was added at the end.

        Raises:
            UnavailableError: the service is stopping.
            OverloadedError: there is no room for one more.
        """
        if self.closed:
            raise UnavailableError("the service is stopping; try again later, or elsewhere")
        share = Share(self)
        try:
            share.add_tweets(1)
            yield share
        finally:
            self.tweets -= share.tweets
            self.bytes -= share.bytes


class Share:
    """What one request has of the whole."""

    def __init__(self, admission: Admission) -> None:
        self._all, self.tweets, self.bytes = admission, 0, 0

    def add_tweets(self, count: int) -> None:
        """Reserve `count` more tweets.

        Raises:
            OverloadedError: they are too many.
        """
        if self._all.tweets + count > self._all.limits.queue:
            others, limit = self._all.tweets - self.tweets, self._all.limits.queue
            raise OverloadedError(f"{others} tweets are waiting, the limit is {limit}; try again later")
        self._all.tweets += count
        self.tweets += count

    def add_bytes(self, count: int) -> None:
        """Reserve `count` more bytes.

        Raises:
            OverloadedError: they are too many.
        """
        if self._all.bytes + count > self._all.limits.queue_bytes:
            others, limit = self._all.bytes - self.bytes, self._all.limits.queue_bytes
            raise OverloadedError(f"requests of {others} bytes are waiting, the limit is {limit}; try again later")
        self._all.bytes += count
        self.bytes += count
