"""What clients are made with, checked once for both kinds."""

import math
from dataclasses import dataclass
from operator import index
from typing import Any

import httpx2

from hvpnet_runtime.client.conversation import Conversation
from hvpnet_runtime.errors import InputError, brief

TIMEOUT_SECONDS = 60.0
RETRIES = 8
RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class ClientSettings:
    """Arguments of a client; see `Client`.

    Raises:
        InputError: one is impossible.
    """

    url: str
    token: str | None
    bundle: str | None
    timeout: float
    retries: int
    retry_seconds: float

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url.startswith(("http://", "https://")):
            raise InputError(f"the url of a service begins with http:// or https://, as {brief(self.url)} does not")
        try:
            httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise InputError(f"{brief(self.url)} is no url: {error}") from error
        if self.token is not None and not _fits_a_header(self.token):
            raise InputError("the token must be a string of ASCII characters")  # which is shown nowhere
        if self.bundle is not None and not isinstance(self.bundle, str):
            raise InputError(f"the bundle must be the name that the service has for it, not {brief(self.bundle)}")
        for name, least in (("timeout", "above"), ("retry_seconds", "at least")):
            _check_seconds(name, getattr(self, name), least)
        try:
            is_count = index(self.retries) >= 0
        except TypeError:
            is_count = False
        if not is_count:
            raise InputError(f"retries must be a whole number, at least 0, not {brief(self.retries)}")

    def http(self) -> dict[str, Any]:
        """Arguments of httpx's clients."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token.strip()}"}
        return {"base_url": self.url, "headers": headers, "timeout": self.timeout}

    def conversation(self) -> Conversation:
        """How the client asks."""
        return Conversation(self.url, self.timeout, self.bundle, self.retries, self.retry_seconds)


def _fits_a_header(token: object) -> bool:
    return isinstance(token, str) and token.isascii() and token.strip().isprintable()


def _check_seconds(name: str, value: object, least: str) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or (value == 0 and least == "above"):  # type: ignore[operator]
        raise InputError(f"{name} must be a number of seconds {least} 0, not {brief(value)}")
