"""How much one ingress replica takes in at a time, and that it takes in no more before it stops."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from hvpnet_runtime.serving.errors import OverloadedError, UnavailableError
from hvpnet_runtime.serving.settings import ServiceLimits

Kind: TypeAlias = Literal["tweets", "bytes"]
Add: TypeAlias = Callable[[Kind, int], None]
"""Reserves more for a request, or raises OverloadedError: they are too many."""

_WAITING: dict[Kind, str] = {"tweets": "{} tweets are waiting", "bytes": "requests of {} bytes are waiting"}


class Admission:
    """Counts what came in and was not answered yet: tweets, and bytes of bodies.

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
        """Take nothing more in; how many tweets are in hand still."""
        self.closed = True
        return self._in_hand["tweets"]

    @contextmanager
    def admit(self) -> Iterator[Add]:
        """Count a request in as one tweet, which it has at least, and out with all that was added at the end.

        Raises:
            UnavailableError: the service is stopping.
            OverloadedError: there is no room for one more.
        """
        if self.closed:
            raise UnavailableError("the service is stopping; try again later, or elsewhere")
        own: Counter[Kind] = Counter()

        def add(kind: Kind, count: int) -> None:
            if self._in_hand[kind] + count > self._most[kind]:
                others = _WAITING[kind].format(self._in_hand[kind] - own[kind])
                raise OverloadedError(f"{others}, the limit is {self._most[kind]}; try again later")
            for counts in (self._in_hand, own):
                counts[kind] += count

        try:
            add("tweets", 1)
            yield add
        finally:
            self._in_hand.subtract(own)
