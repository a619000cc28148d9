"""Limits on connections, below HTTP: how many there are, of whom, and how long and large what is no body may be."""

import asyncio
import json
import re
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hvpnet_runtime.serving.errors import HeadersTooLargeError, RequestTimeoutError, ServiceError, UnavailableError
from hvpnet_runtime.serving.errors import problem as problem_of
from hvpnet_runtime.serving.settings import Connections

_MOST_AHEAD = 16
"""Requests that a client may send before the one before them is answered; uvicorn keeps them all."""

_UNREAD_SECONDS = 30  # that a client may not read an answer

_UPGRADE = re.compile(rb"(\r\n)upgrade(\s*:)", re.IGNORECASE)
"""Clients that offer HTTP/2, as Java's does of its own accord, are answered in HTTP/1.1, as if they did not. httptools
would leave the body of such a request unread."""

_PHRASES = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


def limited(limits: Connections, retry_after_seconds: int) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that holds connections to limits.

    Args:
        limits: on them.
        retry_after_seconds: what a client that is one too many is told to wait.
    """
    members = {"limits": limits, "retry_after_seconds": retry_after_seconds, "open_by_client": Counter()}
    return type("Limited", (_Limited,), members)


class _Limited(HttpToolsProtocol):
    """One connection. What a request has beside its body counts: headers, trailers, and the sizes of chunks."""

    limits: ClassVar[Connections]
    retry_after_seconds: ClassVar[int]
    open_by_client: ClassVar[Counter[str]]

    _counted = False
    _timer: asyncio.TimerHandle | None = None  # until the headers are there
    _writing: asyncio.TimerHandle | None = None  # until the client reads
    _running: RequestResponseCycle | None = None  # which is answered now; `cycle` is the last that came
    _beside = 0  # bytes of this request that are no body; of the next one's, the first read may come for free
    _body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.most or self.open_by_client[self._address()] >= self.limits.per_client:
            self._refuse(UnavailableError("too many connections are open; try again later"))
            return
        self.open_by_client[self._address()] += 1
        self._counted = True
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        if self._counted:
            self.open_by_client[self._address()] -= 1
            if not self.open_by_client[self._address()]:
                del self.open_by_client[self._address()]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._beside += len(data)
        if self._timer is not None:
            head, end, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(rb"\1X-Upgra\2", head) + end + rest
        super().data_received(data)
        if self._beside > self.limits.header_bytes + self._body and not self.transport.is_closing():
            self._refuse(HeadersTooLargeError(f"the headers have more than {self.limits.header_bytes} bytes"))

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MOST_AHEAD:
            raise ValueError("too many requests at once")  # which httptools passes on as an error of the client
        self._body = 0
        self._wait_for_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._beside = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  an ASGI application
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _address(self) -> str:
        """Whom connections count for; who has an IPv6 address has 64 bits of them."""
        if self.client is None:
            return ""
        address = ip_address(self.client[0].partition("%")[0])
        return str(address if address.version == 4 else ip_network((address, 64), strict=False))

    def _wait_for_headers(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.limits.header_seconds, self._give_up)

    def _give_up(self) -> None:
        seconds = self.limits.header_seconds
        if self._beside:
            self._refuse(RequestTimeoutError(f"the headers did not arrive within {seconds:g} seconds"))
        else:
            self.transport.close()  # browsers open connections ahead, and would take an error for the next answer

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: ServiceError) -> None:
        """Say why, unless an answer is on its way, and close."""
        self._stop_waiting()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_response(error, self.retry_after_seconds))
        self.transport.close()
        self.loop.call_later(_UNREAD_SECONDS, self.transport.abort)


def _response(error: ServiceError, retry_after_seconds: int) -> bytes:
    members: dict[str, Any] = problem_of(error)
    body = json.dumps(members)
    retry = f"retry-after: {retry_after_seconds}\r\n" if isinstance(error, UnavailableError) else ""
    return (
        f"HTTP/1.1 {error.status} {_PHRASES[error.status]}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n{body}"
    ).encode()
