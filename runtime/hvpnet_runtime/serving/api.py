"""The HTTP interface: routes, limits, the bearer token, and errors as problem details. Knows nothing of Ray."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hvpnet_runtime.errors import HvpnetError, InputError, brief
from hvpnet_runtime.serving.admission import Admission
from hvpnet_runtime.serving.errors import (
    DeadlineError,
    InternalError,
    OverloadedError,
    TokenError,
    TweetsError,
    UnavailableError,
    problem,
)
from hvpnet_runtime.serving.messages import (
    JSON,
    SCHEMAS,
    ExtractRequest,
    ExtractResponse,
    Message,
    TriplesRequest,
    TriplesResponse,
    read_request,
    request_body,
    schemas,
    to_tweets,
)
from hvpnet_runtime.serving.metrics import Metrics
from hvpnet_runtime.serving.middleware import DOCS_FILES, ReadBeforeAnswering, RequireToken
from hvpnet_runtime.serving.page import Service, add_page, describe
from hvpnet_runtime.serving.settings import ServiceLimits, Settings
from hvpnet_runtime.types import Rejection, RelationResult, Result, TripleResult, Tweet

PROBLEM = "application/problem+json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Answers: TypeAlias = Sequence[Result | Rejection]
"""One result per tweet, in order, or the reasons why some of them cannot be processed."""

Triples: TypeAlias = Sequence[TripleResult | Rejection]
"""One result per post, in order, or the reasons why some of them cannot be processed."""

_Answer = TypeVar("_Answer")


class Extractor(Protocol):
    """What answers the requests."""

    async def extract(self, bundle: str, tweets: Sequence[Tweet]) -> Answers:
        """Answers to tweets. Cancelled, it stops what it can, and ends only when nothing works on them any more."""
        ...

    async def relate(self, entities: str, relations: str, posts: Sequence[Tweet]) -> Triples:
        """Triples of posts by a bundle for entities and one for relations; see `extract`.

        Raises:
            UnknownBundleError: the two do not go together.
        """
        ...

    async def missing(self) -> list[str]:
        """Names of the parts that cannot answer now; none when the service is ready."""
        ...

    async def metrics(self) -> bytes:
        """Metrics of every process of the service, in Prometheus's text format."""
        ...


def create_api(
    settings: Settings,
    extractor: Extractor,
    metrics: Metrics,
    *,
    admission: Admission | None = None,
    token: str | None = None,
) -> FastAPI:
    """The application.

    Args:
        settings: limits, and the names of the bundles.
        extractor: answers.
        metrics: where errors and latencies are counted.
        admission: counts what is in hand, and whoever gave it can close it: then requests and `/readyz` get 503.
        token: what a client must send as bearer token; None lets everyone in.
    """
    admission = admission or Admission(settings.limits)
    api = FastAPIOffline(
        title="hvpnet", version=version("hvpnet"), redoc_url=None, static_url=DOCS_FILES, redirect_slashes=False
    )
    service = describe(settings)
    desk = _Desk(settings.limits, admission)
    _add_extract(api, service, extractor, metrics, desk)
    _add_triples(api, service, extractor, metrics, desk)
    add_page(api, service)
    _add_probes(api, extractor, admission)
    _add_error_handlers(api, settings.limits, metrics)
    _add_descriptions(api, settings.limits, protected=token is not None)
    if token is not None:
        refuse = partial(_problem_response, limits=settings.limits, metrics=metrics)
        api.add_middleware(RequireToken, token=token, refuse=refuse)
    api.add_middleware(ReadBeforeAnswering, limits=settings.limits)
    return api


class _Desk:
    """Takes requests in, as long as there is room, and hands out the answers that are there in time.

    Args:
        limits: of a request.
        admission: counts what is in hand.
    """

    def __init__(self, limits: ServiceLimits, admission: Admission) -> None:
        self._limits, self._admission = limits, admission

    async def answers(
        self,
        request: Request,
        kind: type[Message],
        begin: Callable[[Message, list[Tweet]], Coroutine[Any, Any, Sequence[_Answer | Rejection]]],
    ) -> list[_Answer]:
        """Read a request, and answer it.

        Args:
            request: of this kind.
            kind: see above.
            begin: the work on its tweets; it refuses at once what nobody here can answer.

        Raises:
            TweetsError: some tweets cannot be processed.
            HvpnetError: see `_outcome`, and whatever `begin` raises.
        """
        share = self._admission.admit()  # a full service says so before it reads the body
        try:
            message, pictures = await read_request(request, kind, self._limits, partial(share.add, "bytes"))
            share.add("tweets", len(message.tweets))
            request.state.tweets = len(message.tweets)
            tweets = to_tweets(message.tweets, pictures, self._limits)
            work = asyncio.ensure_future(begin(message, tweets))
        except BaseException:
            share.give_back()
            raise
        work.add_done_callback(lambda _: share.give_back())  # which may be after the client got its answer
        answers = await _outcome(work, request, self._limits.answer_seconds)
        if rejections := [answer for answer in answers if isinstance(answer, Rejection)]:
            raise TweetsError(rejections)
        return [answer for answer in answers if not isinstance(answer, Rejection)]


_REFUSALS = (400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504)


def _add_extract(api: FastAPI, service: Service, extractor: Extractor, metrics: Metrics, desk: _Desk) -> None:
    @api.post(
        "/v1/extract",
        response_model=ExtractResponse,
        openapi_extra={"requestBody": request_body(ExtractRequest)},
        responses=_problems(*_REFUSALS),
    )
    async def extract(request: Request) -> Response:
        """Entities or relations of tweets: one result per tweet, in order, or a problem that lists what is wrong."""
        start, asked = time.perf_counter(), ("", 0)

        def begin(message: ExtractRequest, tweets: list[Tweet]) -> Coroutine[Any, Any, Answers]:
            nonlocal asked
            bundle = service.bundle(message.bundle)
            if message.top_k and bundle.task == "ner":
                raise InputError(f"top_k is for relations, and {brief(bundle.name)} is a bundle for entities")
            asked = bundle.name, message.top_k
            return extractor.extract(bundle.name, tweets)

        answers: list[Result] = await desk.answers(request, ExtractRequest, begin)
        bundle, top_k = asked
        left_out = set[str]() if any(answer.objects is not None for answer in answers) else {"objects"}
        if top_k:
            answers = [_with_top(answer, top_k) for answer in answers]
        else:
            left_out.add("probabilities")
        body = _json(ExtractResponse.model_construct(bundle=bundle, results=answers), left_out)
        metrics.answered(bundle, len(answers), time.perf_counter() - start)
        return Response(body, media_type=JSON)


def _add_triples(api: FastAPI, service: Service, extractor: Extractor, metrics: Metrics, desk: _Desk) -> None:
    @api.post(
        "/v1/triples",
        response_model=TriplesResponse,
        openapi_extra={"requestBody": request_body(TriplesRequest)},
        responses=_problems(*_REFUSALS),
    )
    async def triples(request: Request) -> Response:
        """Entities of posts and the relations between them: one result per post, in order, or a problem."""
        start, asked = time.perf_counter(), ("", "")

        def begin(message: TriplesRequest, posts: list[Tweet]) -> Coroutine[Any, Any, Triples]:
            nonlocal asked
            asked = service.bundle(message.entities, "ner").name, service.bundle(message.relations, "re").name
            return extractor.relate(*asked, posts)

        answers = await desk.answers(request, TriplesRequest, begin)
        entities, relations = asked
        left_out = set[str]() if any(answer.objects is not None for answer in answers) else {"objects"}
        response = TriplesResponse.model_construct(entities=entities, relations=relations, results=answers)
        metrics.answered("+".join(asked), len(answers), time.perf_counter() - start)
        return Response(_json(response, left_out), media_type=JSON)


def _with_top(answer: Result, top_k: int) -> Result:
    """A relation with no more than so many probabilities."""
    if isinstance(answer, RelationResult):
        return replace(answer, probabilities=dict(islice(answer.probabilities.items(), top_k)))
    return answer


def _json(response: ExtractResponse | TriplesResponse, left_out: set[str]) -> str:
    """A response without these keys of its results."""
    return response.model_dump_json(exclude={"results": {"__all__": left_out}} if left_out else None)


async def _outcome(work: "asyncio.Future[_Answer]", request: Request, seconds: float) -> _Answer:
    """What the work yields, if it does in time and the client waits for it; else it is cancelled.

    Raises:
        DeadlineError: it took too long.
        ClientDisconnect: the client hung up.
    """
    gone = asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait((work, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        if gone.done():
            raise ClientDisconnect
        raise DeadlineError(f"the answer took more than {seconds:g} seconds; send fewer tweets or smaller pictures")
    finally:
        gone.cancel()
        work.cancel()


async def _hang_up(request: Request) -> None:
    """Returns when the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_probes(api: FastAPI, extractor: Extractor, admission: Admission) -> None:
    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @api.get("/readyz", responses={503: {"description": "some part of the service cannot answer"}})
    async def readyz() -> Response:
        """Whether every part of the service can answer, and it is not about to stop."""
        if admission.closed:
            return JSONResponse({"status": "stopping"}, 503)
        missing = await extractor.missing()
        status = {"status": "waiting", "missing": missing} if missing else {"status": "ready"}
        return JSONResponse(status, 503 if missing else 200)

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus metrics of the whole service."""
        return Response(await extractor.metrics(), media_type=PROMETHEUS)


def _problem_response(error: HvpnetError, limits: ServiceLimits, metrics: Metrics) -> Response:
    members = problem(error)
    metrics.error(members["title"])
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, TokenError) else {}
    if isinstance(error, OverloadedError | UnavailableError):
        headers["Retry-After"] = str(limits.retry_after_seconds)
    return JSONResponse(members, members["status"], headers, media_type=PROBLEM)


def _add_error_handlers(api: FastAPI, limits: ServiceLimits, metrics: Metrics) -> None:
    @api.exception_handler(HvpnetError)
    async def known(_: Request, error: HvpnetError) -> Response:
        return _problem_response(error, limits, metrics)

    @api.exception_handler(HTTPException)
    async def routing(_: Request, error: HTTPException) -> Response:
        members = {"type": "about:blank", "title": error.detail, "status": error.status_code}
        return JSONResponse(members, error.status_code, error.headers, media_type=PROBLEM)

    @api.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001
        return Response(status_code=400)  # which nobody reads

    @api.exception_handler(Exception)  # raised again when this is sent, so the server logs it
    async def unknown(_: Request, error: Exception) -> Response:  # noqa: ARG001
        return _problem_response(InternalError("the service failed; its log says why"), limits, metrics)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM: {"schema": {"$ref": f"{SCHEMAS}Problem"}}}
    return {status: {"content": content} for status in statuses}


def _add_descriptions(api: FastAPI, limits: ServiceLimits, *, protected: bool) -> None:
    """What FastAPI cannot see: the body, which is read by hand, and the token, which is checked before the routes."""
    schema = api.openapi()  # which FastAPI makes once, and keeps
    schema["components"]["schemas"] |= schemas(limits)
    if protected:
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
