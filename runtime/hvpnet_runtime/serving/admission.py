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
            share.add(tweets=1)
            yield share
        finally:
            self.tweets -= share.tweets
            self.bytes -= share.bytes


class Share:
    """What one request has of the whole."""

    def __init__(self, admission: Admission) -> None:
        self._all, self.tweets, self.bytes = admission, 0, 0

    def add(self, *, tweets: int = 0, bytes_: int = 0) -> None:
        """Reserve more tweets or more bytes.

        Raises:
            OverloadedError: they are too many.
        """
        whole, limits = self._all, self._all.limits
        if whole.tweets + tweets > limits.queue:
            waiting = f"{whole.tweets - self.tweets} tweets are waiting, the limit is {limits.queue}"
            raise OverloadedError(f"{waiting}; try again later")
        if whole.bytes + bytes_ > limits.queue_bytes:
            waiting = f"requests of {whole.bytes - self.bytes} bytes are waiting, the limit is {limits.queue_bytes}"
            raise OverloadedError(f"{waiting}; try again later")
        for each in (whole, self):
            each.tweets += tweets
            each.bytes += bytes_
