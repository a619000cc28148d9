"""The client for programs with an event loop."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Self, TypeVar

import anyio
import httpx2
from anyio.to_thread import run_sync

from hvpnet_runtime.answering import many
from hvpnet_runtime.client.conversation import Call, End, Pause, Talk, go_on, raise_rejection
from hvpnet_runtime.client.requests import Batch, Item, Limits, encode
from hvpnet_runtime.client.settings import RETRIES, RETRY_SECONDS, TIMEOUT_SECONDS, ClientSettings
from hvpnet_runtime.types import Rejection, Result, TripleResult, Tweet

_T = TypeVar("_T")


class AsyncClient:
    """`Client` for asyncio and trio: the same arguments, answers and errors.

    Pictures are read in threads. Close it, or use it in an `async with`.

    Args:
        url: of the service, such as `http://127.0.0.1:8000`.
        token: the bearer token that it asks for.
        bundle: the name of the bundle to ask; by default the first that is served.
        timeout: seconds to connect, and without a byte of the answer.
        retries: of one request that the service refuses for now (429, 503), each as many seconds later as it says.
        retry_seconds: of waiting for one request, at most; a service that asks for more is not asked again.
        transport: of httpx: how requests travel, for instance to an ASGI application in this process.

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
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        settings = ClientSettings(url, token, bundle, timeout, retries, retry_seconds)
        self._conversation = settings.conversation()
        self._http = httpx2.AsyncClient(**settings.http(), transport=transport)
        self._limits: Limits | None = None

    async def extract(self, tweets: Iterable[Tweet] | AsyncIterable[Tweet], top_k: int = 0) -> list[Result]:
        """Extract from tweets: one result each, in order; see `Client.extract`."""
        outcomes = self.stream(tweets, top_k)
        return [raise_rejection(each) if isinstance(each, Rejection) else each async for each in outcomes]

    def stream(
        self, tweets: Iterable[Tweet] | AsyncIterable[Tweet], top_k: int = 0
    ) -> AsyncIterator[Result | Rejection]:
        """Extract from any number of tweets: one result or rejection each, in order; see `Client.stream`."""
        given = tweets if isinstance(tweets, AsyncIterable) else _one_by_one(many(tweets))
        return self._stream(given, partial(self._conversation.answers, top_k=top_k))

    async def triples(
        self, posts: Iterable[Tweet] | AsyncIterable[Tweet], entities: str | None = None, relations: str | None = None
    ) -> list[TripleResult]:
        """Entities of posts and the relations between them; see `Client.triples`."""
        outcomes = self.stream_triples(posts, entities, relations)
        return [raise_rejection(each) if isinstance(each, Rejection) else each async for each in outcomes]

    def stream_triples(
        self, posts: Iterable[Tweet] | AsyncIterable[Tweet], entities: str | None = None, relations: str | None = None
    ) -> AsyncIterator[TripleResult | Rejection]:
        """As `triples`, for any number of posts; see `Client.stream`."""
        given = posts if isinstance(posts, AsyncIterable) else _one_by_one(many(posts))
        return self._stream(given, partial(self._conversation.triples, entities=entities, relations=relations))

    async def _stream(
        self, tweets: AsyncIterable[Tweet], ask: Callable[[Sequence[Item]], Talk[list[_T | Rejection]]]
    ) -> AsyncIterator[_T | Rejection]:
        if self._limits is None:
            self._limits = await self._have(self._conversation.limits())
        batch, row = Batch(self._limits), 0
        async for tweet in tweets:
            item = await run_sync(encode, row, tweet, self._limits.body_bytes)
            if not batch.has_room(item):
                for outcome in await self._have(ask(batch.items)):
                    yield outcome
                batch = Batch(self._limits)
            batch.add(item)
            row += 1
        for outcome in await self._have(ask(batch.items)):
            yield outcome

    async def _have(self, talk: Talk[_T]) -> _T:
        step = go_on(talk)
        while not isinstance(step, End):
            step = go_on(talk, await self._do(step))
        return step.result

    async def _do(self, step: Call | Pause) -> httpx2.Response | httpx2.RequestError | None:
        if isinstance(step, Pause):
            await anyio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(step.method, step.path, **step.options)
        except httpx2.RequestError as error:
            return error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _one_by_one(tweets: Iterable[Tweet]) -> AsyncIterator[Tweet]:
    for tweet in tweets:
        yield tweet
