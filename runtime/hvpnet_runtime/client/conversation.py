"""What a client and a service say to each other, without a network or a clock.

A `Talk` yields what is to be done next, a `Call` or a `Pause`, is sent the answer to a call, or thrown what it failed
with, and returns what came of it. `go_on` leads it; `Client` and `AsyncClient` do what it asks for, each in its way.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

import httpx2

from hvpnet_runtime import errors
from hvpnet_runtime.client.requests import Encoded, Item, Limits, body
from hvpnet_runtime.errors import HvpnetError, InputError, MissingExtraError, UnreachableError, brief
from hvpnet_runtime.serving import errors as service_errors
from hvpnet_runtime.serving.errors import (
    BodyTooLargeError,
    DeadlineError,
    OverloadedError,
    ServiceError,
    TweetsError,
    UnavailableError,
)
from hvpnet_runtime.types import (
    Entity,
    EntityResult,
    FoundObject,
    Mention,
    Rejection,
    RelationResult,
    Result,
    Triple,
    TripleResult,
)

EXTRACT, TRIPLES, SERVICE = "/v1/extract", "/v1/triples", "/v1/service"

_OK, _LATER = 200, (OverloadedError.status, UnavailableError.status)
_DROPPED = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
_PAUSE_SECONDS = 1.0  # where no Retry-After says how long

_MADE_OTHERWISE = (TweetsError, MissingExtraError)  # never of one message
_CLASSES: dict[str, type[HvpnetError]] = {
    name: each
    for module in (errors, service_errors)
    for name, each in vars(module).items()
    if isinstance(each, type) and issubclass(each, HvpnetError) and each not in _MADE_OTHERWISE
}
_BY_STATUS = {each.status: each for each in ServiceError.__subclasses__()}


class Call(NamedTuple):
    """A request to be made: `options` are arguments of httpx."""

    method: str
    path: str
    options: dict[str, Any] = {}  # noqa: RUF012  never written to


class Pause(NamedTuple):
    """A time to wait."""

    seconds: float


_T = TypeVar("_T")
Talk: TypeAlias = Generator[Call | Pause, httpx2.Response | None, _T]


@dataclass(frozen=True)
class End(Generic[_T]):
    """The end of a talk, and what came of it."""

    result: _T


def go_on(talk: Talk[_T], told: httpx2.Response | httpx2.RequestError | None = None) -> Call | Pause | End[_T]:
    """The next step of a talk.

    Args:
        talk: which has just begun, or asked for something.
        told: the answer to its call, or what that failed with; None at the beginning, and after a pause.

    Raises:
        HvpnetError: what the talk ends with.
    """
    try:
        return talk.throw(told) if isinstance(told, httpx2.RequestError) else talk.send(told)
    except StopIteration as end:
        return End(end.value)


@dataclass(frozen=True)
class Conversation:
    """How a client asks.

    Attributes:
        url: of the service, for messages.
        timeout: seconds without an answer, for messages.
        bundle: asked for; None is the service's first.
        retries: of one request that is refused with 429 or 503.
        retry_seconds: of waiting for them, together.
    """

    url: str
    timeout: float
    bundle: str | None
    retries: int
    retry_seconds: float

    def limits(self) -> Talk[Limits]:
        """Ask what fits into a request."""
        response = yield from self._ask(Call("GET", SERVICE))
        if response.status_code != _OK:
            raise self._error(response)
        try:
            limits = response.json()["limits"]
            return Limits(int(limits["tweets"]), int(limits["body_bytes"]))
        except (ValueError, TypeError, KeyError) as error:
            raise self._stranger(response) from error

    def answers(self, items: Sequence[Item], top_k: int = 0) -> Talk[list[Result | Rejection]]:
        """Ask for one request's tweets: a result or rejection each, in order; see `_answers`."""
        asked = {"bundle": self.bundle, "top_k": top_k or None}
        return self._answers(items, EXTRACT, asked, _result)

    def triples(
        self, items: Sequence[Item], entities: str | None = None, relations: str | None = None
    ) -> Talk[list[TripleResult | Rejection]]:
        """Ask for one request's posts: their triples or a rejection each, in order; see `_answers`.

        Raises:
            InputError: the client is one for a single bundle.
        """
        if self.bundle is not None:
            raise InputError(
                f"this client asks the bundle {brief(self.bundle)} alone: make one without bundle=, and name two"
                " bundles with entities= and relations="
            )
        return self._answers(items, TRIPLES, {"entities": entities, "relations": relations}, _triples)

    def _answers(
        self, items: Sequence[Item], path: str, asked: Mapping[str, Any], read: Callable[[Any, Mapping[str, Any]], _T]
    ) -> Talk[list[_T | Rejection]]:
        """Ask for one request's tweets: what `read` makes of an answer, or a rejection each, in order.

        A service refuses a request for one bad tweet. It says which, and the others are sent again; where it does not,
        as for values that no tweet can have, halves are, until the bad one is alone. So are halves of what took
        too long.
        """
        outcomes: dict[int, _T | Rejection] = {item.row: item for item in items if isinstance(item, Rejection)}
        groups = [[item for item in items if isinstance(item, Encoded)]]
        while groups:
            group = groups.pop()
            if not group:
                continue
            response = yield from self._ask(Call("POST", path, body(asked, group)))
            if response.status_code == _OK:
                outcomes |= self._results(response, group, read)
                continue
            error = self._error(response)
            if not isinstance(error, InputError | BodyTooLargeError | DeadlineError):
                raise error
            if isinstance(error, DeadlineError) and len(group) == 1:
                raise error  # a fault of the service rather than of the tweet
            if rejected := self._rejections(response, group):
                outcomes |= rejected
                groups.append([item for item in group if item.row not in rejected])
            elif len(group) == 1:
                outcomes[group[0].row] = Rejection.of(group[0].row, group[0].id, error)
            else:
                groups += [group[len(group) // 2 :], group[: len(group) // 2]]
        return [outcomes[item.row] for item in items]

    def _ask(self, call: Call) -> Talk[httpx2.Response]:
        """The answer to a call, which is repeated as long as the service says later.

        It is also repeated, once, where its connection is dropped: the service, or a proxy before it, may close an idle
        one just as a request sets out on it, and no request changes anything there.
        """
        waited, attempt, dropped = 0.0, 0, False
        while True:
            try:
                response = yield call
            except httpx2.RequestError as error:
                if dropped or not isinstance(error, _DROPPED):
                    raise _unreachable(self.url, error, self.timeout) from error
                dropped = True
                continue
            if response is None:
                raise TypeError("a call is answered by a response")
            if response.status_code not in _LATER:
                return response
            pause = _retry_after(response)
            waited += pause
            if attempt >= self.retries or waited > self.retry_seconds:
                raise self._error(response)
            attempt += 1
            yield Pause(pause)

    def _results(
        self, response: httpx2.Response, group: Sequence[Encoded], read: Callable[[Any, Mapping[str, Any]], _T]
    ) -> dict[int, _T]:
        try:
            results = response.json()["results"]
            return {item.row: read(item.id, values) for item, values in zip(group, results, strict=True)}
        except (ValueError, TypeError, KeyError) as error:
            raise self._stranger(response) from error

    def _rejections(self, response: httpx2.Response, group: Sequence[Encoded]) -> dict[int, Rejection]:
        """Rejections by row, where the problem lists them."""
        found: dict[int, Rejection] = {}
        try:
            for listed in _problem(response).get("errors", []):
                item, reason = group[listed["row"]], listed["error"]
                found[item.row] = Rejection(item.row, item.id, reason["type"], reason["message"])
        except (ValueError, TypeError, LookupError) as error:
            raise self._stranger(response) from error
        return found

    def _error(self, response: httpx2.Response) -> HvpnetError:
        """The library's error of the name that the problem has; of a proxy's answer, that of the status."""
        problem = _problem(response)
        title, detail = problem.get("title"), problem.get("detail")
        if title in _CLASSES and isinstance(detail, str):
            return _CLASSES[title](detail)
        if response.status_code in _LATER:
            kind = _BY_STATUS[response.status_code]
            return kind(f"{self.url} answers {response.status_code} {response.reason_phrase}; try again later")
        return self._stranger(response)

    def _stranger(self, response: httpx2.Response) -> UnreachableError:
        said = brief(response.text[:100])
        return UnreachableError(
            f"{self.url} does not answer as a service of this version does, but with {response.status_code} {said}; "
            "check the address"
        )


def raise_rejection(rejection: Rejection) -> NoReturn:
    """Raise what a tweet was rejected for, saying which tweet it was."""
    name = f"tweet {rejection.row}" + ("" if rejection.id is None else f" (id {brief(rejection.id)})")
    raise _CLASSES.get(rejection.type, InputError)(f"{name}: {rejection.message}")


def _unreachable(url: str, error: httpx2.RequestError, timeout: float) -> UnreachableError:
    """What a failed connection is to a user."""
    if isinstance(error, httpx2.TimeoutException):
        return UnreachableError(f"{url} did not answer within {timeout:g} seconds; try later, or give a longer timeout")
    reason = errors.one_line(error) or type(error).__name__
    return UnreachableError(f"{url} cannot be reached ({reason}); check the address, and that the service runs")


def _problem(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _retry_after(response: httpx2.Response) -> float:
    given = response.headers.get("retry-after", "")
    return float(given) if given.isdecimal() else _PAUSE_SECONDS


def _result(id_: Any, values: Mapping[str, Any]) -> Result:  # noqa: ANN401  whatever the tweet has
    if "entities" in values:
        entities = tuple(Entity(**entity) for entity in values["entities"])
        return EntityResult(id_, entities, tuple(values["tags"]), values["cut_words"], _objects(values))
    head, tail = (Mention(**values[name]) for name in ("head", "tail"))
    score, cut_words = values["score"], values["cut_words"]
    probabilities = values.get("probabilities", {})
    return RelationResult(id_, values["relation"], score, head, tail, cut_words, _objects(values), probabilities)


def _triples(id_: Any, values: Mapping[str, Any]) -> TripleResult:  # noqa: ANN401  whatever the post has
    entities = tuple(Entity(**entity) for entity in values["entities"])
    triples = tuple(
        Triple(Entity(**each["head"]), each["relation"], Entity(**each["tail"]), each["score"], each["probabilities"])
        for each in values["triples"]
    )
    return TripleResult(id_, entities, triples, values["cut_words"], values["cut_pairs"], _objects(values))


def _objects(values: Mapping[str, Any]) -> tuple[FoundObject, ...] | None:
    if "objects" not in values:
        return None
    return tuple(FoundObject(tuple(each["box"]), each["query"], each["score"]) for each in values["objects"])
