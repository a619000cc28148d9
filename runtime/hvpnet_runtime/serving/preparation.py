"""From the tweets of a request to what the backend reads: tokens and pixels."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.preprocessing.prepare import Prepared, Preparer
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.types import Rejection, Tweet


class Preparation:
    """Tweets of one bundle to what the backend reads.

    Args:
        name: of the bundle.
        prepare: of the bundle.
        metrics: where the time it takes is counted.
    """

    def __init__(self, name: str, prepare: Preparer, metrics: Metrics) -> None:
        self._name, self._prepare, self._metrics = name, prepare, metrics

    def __call__(
        self, tweets: Sequence[Tweet], stopped: Callable[[], bool] = lambda: False
    ) -> list[Prepared] | list[Rejection]:
        """Prepare the tweets of one request.

        Bad tweets are an answer, not an exception: they are everyday, and Ray logs the traceback of an exception.

        Args:
            tweets: of the request.
            stopped: asked before each tweet; once it says so, nobody waits for the answer.

        Returns:
            All of them prepared, or the reasons why some cannot be.

        Raises:
            CancelledError: it was stopped.
        """
        start = time.perf_counter()
        outcomes: list[Prepared | Rejection] = []
        for number, tweet in enumerate(tweets):
            if stopped():
                raise CancelledError
            outcomes.append(self._outcome(number, tweet))
        self._metrics.stage(self._name, "prepare", time.perf_counter() - start)
        rejections = [outcome for outcome in outcomes if isinstance(outcome, Rejection)]
        return rejections or [outcome for outcome in outcomes if isinstance(outcome, Prepared)]

    def _outcome(self, number: int, tweet: Tweet) -> Prepared | Rejection:
        """Any other exception than these is a fault of the service, which its log has to show."""
        try:
            prepared = self._prepare(tweet)
        except InputError as error:
            return Rejection.of(number, tweet.id, error)
        # The backend reads the prepared pictures; the tweet's own need not travel to it.
        return replace(prepared, tweet=replace(tweet, image=None, objects=(), boxes=()))
