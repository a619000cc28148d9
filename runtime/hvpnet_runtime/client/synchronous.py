"""The client for programs without an event loop."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Self, TypeVar

import httpx2

from hvpnet_runtime.answering import many
from hvpnet_runtime.client.conversation import Call, End, Pause, Talk, go_on, raise_rejection
from hvpnet_runtime.client.requests import Batch, Item, Limits, encode
from hvpnet_runtime.client.settings import RETRIES, RETRY_SECONDS, TIMEOUT_SECONDS, ClientSettings
from hvpnet_runtime.types import Rejection, Result, TripleResult, Tweet

_T = TypeVar("_T")


class Client:
    """A service, used as a `Pipeline` is. Thread-safe; close it, or use it in a `with`.

    A picture given as a path is read here, and sent; an image or array is sent as PNG, which keeps every pixel.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        token: the bearer token that it asks for.
        bundle: the name of the bundle to ask; by default the first that is served.
        timeout: seconds to connect, and without a byte of the answer.
        retries: of one request that the service refuses for now (429, 503), each as many seconds later as it says.
        retry_seconds: of waiting for one request, at most; a service that asks for more is not asked again.
        transport: of httpx: how requests travel, for instance over a Unix socket.

    Raises:
        InputError: an argument is impossible.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        bundle: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        retry_seconds: float = RETRY_SECONDS,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        settings = ClientSettings(url, token, bundle, timeout, retries, retry_seconds)
        self._conversation = settings.conversation()
        self._http = httpx2.Client(**settings.http(), transport=transport)
        self._limits: Limits | None = None

    def extract(self, tweets: Iterable[Tweet], top_k: int = 0) -> list[Result]:
        """Extract from tweets: one result each, in order. A long list travels in several requests.

        Args:
            tweets: any number; `stream` neither stops at one that cannot be processed nor holds them all.
            top_k: relations: how many of the most probable to have in `probabilities`.

        Raises:
            InputError: a tweet cannot be processed, and the message says which.
            BodyTooLargeError: a tweet's pictures are more than the service takes.
            OverloadedError: the service was full at every attempt.
            UnavailableError: likewise, it was stopping or could not answer.
            TokenError: the token is missing or wrong.
            UnknownBundleError: no bundle of this name is served.
            ServiceError: the service refused or failed in another way.
            UnreachableError: it cannot be reached, does not answer in time, or is no service of this version.
        """
        outcomes = self.stream(tweets, top_k)
        return [raise_rejection(each) if isinstance(each, Rejection) else each for each in outcomes]

    def stream(self, tweets: Iterable[Tweet], top_k: int = 0) -> Iterator[Result | Rejection]:
        """Extract from any number of tweets: one result or rejection each, in order.

        Tweets are read lazily, as many at a time as the service takes in one request.

        Args:
            tweets: any iterable; a tweet that cannot be processed becomes a `Rejection`, whose `row` counts from 0.
            top_k: as of `extract`.

        Raises:
            InputError: `tweets` is one tweet, text or dict.
            HvpnetError: what ends a stream as it ends `extract`; tweets are rejected, not raised for.
        """
        return self._stream(many(tweets), partial(self._conversation.answers, top_k=top_k))

    def triples(
        self, posts: Iterable[Tweet], entities: str | None = None, relations: str | None = None
    ) -> list[TripleResult]:
        """Entities of posts and the relations between them; see `extract`.

        Args:
            posts: any number.
            entities: the name of the bundle for entities; by default the service's first.
            relations: likewise.

        Raises:
            InputError: as `extract`; or the client was made for one `bundle`.
            HvpnetError: as `extract`; UnknownBundleError where the service has no such two bundles.
        """
        outcomes = self.stream_triples(posts, entities, relations)
        return [raise_rejection(each) if isinstance(each, Rejection) else each for each in outcomes]

    def stream_triples(
        self, posts: Iterable[Tweet], entities: str | None = None, relations: str | None = None
    ) -> Iterator[TripleResult | Rejection]:
        """As `triples`, for any number of posts; see `stream`."""
        return self._stream(many(posts), partial(self._conversation.triples, entities=entities, relations=relations))

    def _stream(
        self, tweets: Iterable[Tweet], ask: Callable[[Sequence[Item]], Talk[list[_T | Rejection]]]
    ) -> Iterator[_T | Rejection]:
        if self._limits is None:
            self._limits = self._have(self._conversation.limits())
        batch = Batch(self._limits)
        for row, tweet in enumerate(tweets):
            item = encode(row, tweet, self._limits.body_bytes)
            if not batch.has_room(item):
                yield from self._have(ask(batch.items))
                batch = Batch(self._limits)
            batch.add(item)
        yield from self._have(ask(batch.items))

    def _have(self, talk: Talk[_T]) -> _T:
        step = go_on(talk)
        while not isinstance(step, End):
            step = go_on(talk, self._do(step))
        return step.result

    def _do(self, step: Call | Pause) -> httpx2.Response | httpx2.RequestError | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(step.method, step.path, **step.options)
        except httpx2.RequestError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
