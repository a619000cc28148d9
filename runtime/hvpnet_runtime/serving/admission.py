"""How much one ingress takes in at a time, and that it takes in no more before it stops."""

from collections import Counter
from typing import Literal, TypeAlias

from hvpnet_runtime.serving.errors import OverloadedError, UnavailableError
from hvpnet_runtime.serving.settings import ServiceLimits

Kind: TypeAlias = Literal["requests", "tweets", "bytes"]

_WAITING: dict[Kind, str] = {"tweets": "{} tweets are waiting", "bytes": "requests of {} bytes are waiting"}


class Admission:
    """Counts what came in and was not answered yet: requests, their tweets, and bytes of their bodies.

    Args:
        limits: `queue` and `queue_bytes` count here.

    Attributes:
        closed: nothing more is taken in.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self._most: dict[Kind, int] = {"tweets": limits.queue, "bytes": limits.queue_bytes}
        self._in_hand: Counter[Kind] = Counter()
        self.closed = False

    def close(self) -> int:
        """Take nothing more in; how many requests are in hand still."""
        self.closed = True
        return self._in_hand["requests"]

    def admit(self) -> "Share":
        """Count a request in, before its body is read: a body that trickles in takes nobody's place among the tweets.

        Raises:
            UnavailableError: the service is stopping.
            OverloadedError: there is no room for one more tweet.
        """
        if self.closed:
            raise UnavailableError("the service is stopping; try again later, or elsewhere")
        share = Share(self._in_hand, self._most)
        share.check("tweets", 1)
        share.add("requests", 1)
        return share


class Share:
    """What one request has of the whole, until it is given back."""

    def __init__(self, in_hand: Counter[Kind], most: dict[Kind, int]) -> None:
        self._in_hand, self._most = in_hand, most
        self._own: Counter[Kind] = Counter()

    def check(self, kind: Kind, count: int) -> None:
        """Raises OverloadedError if so much more is too much."""
        if kind in self._most and self._in_hand[kind] + count > self._most[kind]:
            others = _WAITING[kind].format(self._in_hand[kind] - self._own[kind])
            raise OverloadedError(f"{others}, the limit is {self._most[kind]}; try again later")

    def add(self, kind: Kind, count: int) -> None:
        """Reserve more.

        Raises:
            OverloadedError: so much is too much.
        """
        self.check(kind, count)
        for counts in (self._in_hand, self._own):
            counts[kind] += count

    def give_back(self) -> None:
        """Count all of it out."""
        self._in_hand.subtract(self._own)
        self._own.clear()
