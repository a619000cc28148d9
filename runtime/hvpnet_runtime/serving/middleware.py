"""ASGI middleware: what is done to a request before any route sees it."""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Callable
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hvpnet_runtime.serving.errors import RequestTimeoutError, TokenError
from hvpnet_runtime.serving.settings import ServiceLimits

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
"""Answered without a token: what they say is no secret, and probes and browsers have none."""

DOCS_FILES = "/docs-files"
"""Where the files of the page at /docs are, which are open as it is."""

_SHOWN_PATH = 200  # characters of a path that a client made up

_log = logging.getLogger("hvpnet.access")

_REST_BODIES = 4  # times the limit of a body
_REST_SECONDS = 5
_SILENT_SECONDS = 1
_TOO_SLOW = RequestTimeoutError.status


class RequireToken:
    """Without the bearer token, only `OPEN_PATHS`.

    Args:
        app: what to protect.
        token: compared in constant time.
        refuse: makes the answer to a request without it.
    """

    def __init__(self, app: ASGIApp, token: str, refuse: Callable[[TokenError], Response]) -> None:
        self._app, self._token, self._refuse = app, token.encode(), refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        app = self._app
        path = scope.get("path", "")
        is_open = scope["type"] != "http" or path in OPEN_PATHS or path.startswith(f"{DOCS_FILES}/")
        if not is_open and not self._knows_token(Headers(scope=scope)):
            app = self._refuse(TokenError("this service wants a bearer token: Authorization: Bearer <token>"))
        await app(scope, receive, send)

    def _knows_token(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(token.strip().encode(), self._token) and scheme.lower() == "bearer"


class LogRequests:
    """Logs a line for every answer: method, path, status, tweets and milliseconds.

    Args:
        app: what answers; the interface puts the number of tweets into the request's state.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            tweets, milliseconds = scope.get("state", {}).get("tweets", 0), 1000 * (time.perf_counter() - start)
            path = quote(scope["path"][:_SHOWN_PATH])
            _log.info("%s %s %d, %d tweets, %.1f ms", scope["method"], path, status, tweets, milliseconds)


class ReadBeforeAnswering:
    """Reads on, and throws away, what is left of a body when the answer is ready.

    A request may be refused before its body was read. A client that is still sending then finds the connection reset,
    and never sees why. So the rest is read first: up to four times the limit of a body, for five seconds, and until
    nothing has come for one; except if the client was refused for being slow.

    Args:
        app: what answers.
        limits: on a body.
    """

    def __init__(self, app: ASGIApp, limits: ServiceLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and keep its answer until the body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        more = True

        async def receive_and_note() -> Message:
            nonlocal more
            message = await receive()
            more = bool(message.get("more_body"))
            return message

        async def finish_body() -> None:
            unread = _REST_BODIES * self._limits.body_bytes
            while more and unread > 0:
                message = await asyncio.wait_for(receive_and_note(), _SILENT_SECONDS)
                unread -= len(message.get("body", b""))

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and more and message["status"] != _TOO_SLOW:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(finish_body(), _REST_SECONDS)
            await send(message)

        await self._app(scope, receive_and_note, send_after_body)
