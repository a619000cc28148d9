"""Errors of the service, and every error as an RFC 9457 problem."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hvpnet_runtime.errors import HvpnetError, InputError, one_line
from hvpnet_runtime.types import Rejection


class SettingsError(HvpnetError, ValueError):
    """A setting of the service is unknown, impossible or cannot be read."""


class ServiceError(HvpnetError):
    """The service refuses a request as a whole, whatever its tweets say."""

    status: ClassVar[int] = 500


class RequestError(ServiceError):
    """The body is not what its content type says."""

    status = 400


class TokenError(ServiceError):
    """The bearer token is missing or wrong."""

    status = 401


class UnknownBundleError(ServiceError):
    """No bundle of this name is served."""

    status = 404


class RequestTimeoutError(ServiceError):
    """The body did not arrive in time."""

    status = 408


class BodyTooLargeError(ServiceError):
    """The body has too many bytes."""

    status = 413


class MediaTypeError(ServiceError):
    """The content type is neither JSON nor multipart."""

    status = 415


class HeadersTooLargeError(ServiceError):
    """The headers, or what else is no body, have too many bytes."""

    status = 431


class OverloadedError(ServiceError):
    """The queue is full; the same request may succeed later."""

    status = 429


class UnavailableError(ServiceError):
    """The service does not start, or a part of it cannot answer now."""

    status = 503


class StuckError(UnavailableError):
    """A backend does not come back from a run, so the service cannot end in order."""


class DeadlineError(ServiceError):
    """The answer took longer than the service lets a request take."""

    status = 504


class InternalError(ServiceError):
    """Something failed that no request can be blamed for."""


class TweetsError(InputError):
    """Tweets of a request cannot be processed; carries one `Rejection` for each of them."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(rejections)  # what pickling makes it again of
        self.rejections = sorted(map(_in_settings, rejections), key=lambda rejection: rejection.row)

    def __str__(self) -> str:
        return "; ".join(f"tweet {each.row}: {each.message}" for each in self.rejections)


def _in_settings(rejection: Rejection) -> Rejection:
    """Whoever asks a service has no options; whoever runs it has settings of the same names."""
    return replace(rejection, message=re.sub(r"\bthe option (\w+)", r"the service's setting \1", rejection.message))


def problem(error: HvpnetError) -> dict[str, Any]:
    """The members of an RFC 9457 problem; `title` and the end of `type` are the exception's name.

    Tweets that were rejected are listed in `errors`; if all for one reason, that is the problem's own name.
    """
    name, status = type(error).__name__, 500
    members: dict[str, Any] = {"detail": one_line(error)}
    if isinstance(error, ServiceError):
        status = error.status
    elif isinstance(error, InputError):
        status = 422
    if isinstance(error, TweetsError):
        names = {rejection.type for rejection in error.rejections}
        name = names.pop() if len(names) == 1 else InputError.__name__
        members["errors"] = [rejection.to_dict() for rejection in error.rejections]
    return {"type": f"urn:hvpnet:error:{name}", "title": name, "status": status, **members}
