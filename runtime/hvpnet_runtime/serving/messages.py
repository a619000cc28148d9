"""What a request says: JSON, or multipart with a JSON part and the pictures beside it."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import cache
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, create_model, model_validator
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from hvpnet_runtime.errors import InputError, PictureError, TextError, brief
from hvpnet_runtime.serving.errors import (
    BodyTooLargeError,
    MediaTypeError,
    RequestError,
    RequestTimeoutError,
    TweetsError,
)
from hvpnet_runtime.serving.settings import ServiceLimits, first_error
from hvpnet_runtime.types import EntityResult, Rejection, RelationResult, TripleResult, Tweet

JSON, MULTIPART = "application/json", "multipart/form-data"
REQUEST_PART = "request"
"""The part of a multipart body that holds the JSON."""

SCHEMAS = "#/components/schemas/"
"""Where an OpenAPI description has the schemas."""

MOST_OBJECTS = 64
"""Crops or boxes of one tweet: many times what any bundle reads."""

_Item = TypeVar("_Item")
Objects = Annotated[list[_Item], Field(max_length=MOST_OBJECTS, fail_fast=True)]

_SHOWN = 40  # characters of what a client made up

_MOST_PARAMETERS = 16  # in a header of a part, where two are usual

_MORE_COMMAS = 8 * MOST_OBJECTS  # of a tweet, beside those in its text or between its words

Pictures = Callable[[str], bytes]
"""From what stands in the JSON to the bytes of an image file. Nothing is ever fetched or opened by name."""

Span = Annotated[tuple[int, int], Field(description="[start, end) in characters of `text`, or in `words`")]
PixelBox = Annotated[
    tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat], Field(description="[x0, y0, x1, y1] in pixels")
]


class _Message(BaseModel):
    # Keys that are not known are refused below: pydantic itself would make an error of each, and there may be many.
    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, json_schema_extra={"additionalProperties": False}
    )

    @model_validator(mode="after")
    def _has_known_keys(self) -> Self:
        for key in self.model_extra or ():
            raise PydanticCustomError("unknown_key", "the key {key} is not known", {"key": repr(key[:_SHOWN])})
        return self


class TweetMessage(_Message):
    """A tweet: `text` or `words`, and what belongs to it.

    In JSON a picture is the base64 of an image file; in multipart it is the name of the part that holds the file.
    """

    id: str | int | None = Field(None, description="a string or a whole number; the answer carries it")
    text: str | None = Field(None, description="the raw text")
    words: list[str] | None = Field(None, description="the text already split into words")
    image: str | None = Field(None, description="the whole picture")
    objects: Objects[str] | None = Field(
        None,
        description="object crops, most important first, maybe none; without these and boxes, objects are found in the"
        " image if the bundle has a grounder",
    )
    boxes: Objects[PixelBox] | None = Field(
        None, description="object boxes, cropped out of the image by the service, maybe none"
    )
    head: Span | None = Field(None, description="relations: the head entity")
    tail: Span | None = Field(None, description="relations: the tail entity")


class ExtractRequest(_Message):
    """Tweets for one bundle."""

    bundle: str | None = Field(None, description="the bundle's name; by default the first one served")
    top_k: int = Field(0, ge=0, description="relations: how many of the most probable to list with their probabilities")
    tweets: list[TweetMessage]


class TriplesRequest(_Message):
    """Posts for two bundles, one for entities and one for relations. `head` and `tail` of a post are not read."""

    entities: str | None = Field(None, description="the bundle for entities; by default the first one served")
    relations: str | None = Field(None, description="the bundle for relations; by default the first one served")
    tweets: list[TweetMessage]


Message = TypeVar("Message", ExtractRequest, TriplesRequest)


@cache
def request_model(limits: ServiceLimits, kind: type[ExtractRequest | TriplesRequest]) -> Any:  # noqa: ANN401  a class
    """A request that stops to read a list at the first item that is wrong or one too many."""
    description = TweetMessage.model_fields["words"].description
    words = Field(None, max_length=limits.text_characters, fail_fast=True, description=description)
    tweet: Any = create_model(
        "TweetMessage",
        __base__=TweetMessage,
        __doc__=TweetMessage.__doc__,
        words=(list[str] | None, words),
    )
    tweets = Field(min_length=1, max_length=limits.tweets, fail_fast=True)
    return create_model(kind.__name__, __base__=kind, __doc__=kind.__doc__, tweets=(list[tweet], tweets))


class ExtractResponse(BaseModel):
    """One result per tweet, in order."""

    bundle: str
    results: list[EntityResult | RelationResult]


class TriplesResponse(BaseModel):
    """One result per post, in order, and the bundles that were asked."""

    entities: str
    relations: str
    results: list[TripleResult]


class Reason(BaseModel):
    """Why a tweet has no result."""

    type: str = Field(description="name of the library's exception")
    message: str


class RejectedTweet(BaseModel):
    """A tweet that was rejected, as `Rejection.to_dict` gives it."""

    row: int = Field(description="its place among the tweets, from 0")
    id: str | int | None
    error: Reason


class Problem(BaseModel):
    """An RFC 9457 problem: `title` and the end of `type` are the name of the library's exception."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[RejectedTweet] = Field([], description="of each tweet that was rejected: which, and why")


async def read_request(
    request: Request, kind: type[Message], limits: ServiceLimits, count_bytes: Callable[[int], None]
) -> tuple[Message, Pictures]:
    """Read a body as its content type says, and no further than the limits allow.

    Args:
        request: whose body.
        kind: of the request.
        limits: on it.
        count_bytes: called with the length of each piece that arrives; may refuse it.

    Raises:
        ServiceError: its type is unknown, it is too large, too slow or malformed.
        InputError: it is JSON, but no request.
    """
    content_type = _content_type(request)
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _read_body(request, limits.body_bytes, count_bytes)
    except TimeoutError as error:
        raise RequestTimeoutError(f"the body did not arrive within {limits.body_seconds:g} seconds") from error
    if content_type == JSON:
        return _parse(body, kind, limits), _from_base64
    return await _read_parts(request, body, kind, limits)


def to_tweets(messages: list[TweetMessage], pictures: Pictures, limits: ServiceLimits) -> list[Tweet]:
    """Tweets for the library.

    Raises:
        TweetsError: one is too long, or names a picture that is not there; all of them are listed.
    """
    tweets: list[Tweet] = []
    rejections: list[Rejection] = []
    for index, message in enumerate(messages):
        try:
            tweets.append(_to_tweet(message, pictures, limits))
        except InputError as error:
            rejections.append(Rejection.of(index, message.id, error))
    if rejections:
        raise TweetsError(rejections)
    return tweets


def _to_tweet(message: TweetMessage, pictures: Pictures, limits: ServiceLimits) -> Tweet:
    text = message.text if message.text is not None else " ".join(message.words or ())
    if len(text) > limits.text_characters:
        raise TextError(f"the text has {len(text)} characters, the limit is {limits.text_characters}; split it")
    image = None if message.image is None else pictures(message.image)
    objects = None if message.objects is None else [pictures(crop) for crop in message.objects]
    return Tweet(**dict(message) | {"image": image, "objects": objects})


def _content_type(request: Request) -> str:
    """JSON or multipart, both in UTF-8: decoders of other charsets may take the square of what they read."""
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind not in (JSON.encode(), MULTIPART.encode()):
        raise MediaTypeError(f"the content type must be {JSON} or {MULTIPART}")
    if parameters.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise MediaTypeError("the charset must be utf-8")
    return kind.decode()


async def _read_body(request: Request, limit: int, count: Callable[[int], None]) -> bytes:
    """The whole body. What a client declares is believed only if it is too much."""
    message = f"the body has more than {limit} bytes; send fewer tweets or smaller pictures"
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLargeError(message)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise BodyTooLargeError(message)
        count(len(chunk))
        body += chunk
    return bytes(body)


class _Parser(MultiPartParser):
    """Refuses headers of parts that would take long to take apart: there may be as many as the body has room for."""

    def on_header_end(self) -> None:
        if self._current_partial_header_value.count(b";") > _MOST_PARAMETERS:
            raise MultiPartException(f"a header of a part has more than {_MOST_PARAMETERS} parameters")
        super().on_header_end()


async def _read_parts(
    request: Request, body: bytes, kind: type[Message], limits: ServiceLimits
) -> tuple[Message, Pictures]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body  # in one piece: the parser joins a part's headers anew for every piece

    # The parser's own limits, made for pages, would only be second ones: body and tweets have theirs.
    most = 1 + limits.tweets * (1 + MOST_OBJECTS)
    parser = _Parser(request.headers, whole(), max_files=most, max_fields=most, max_part_size=limits.body_bytes)
    parser.spool_max_size = limits.body_bytes  # no picture is written to the disk
    try:
        form = await parser.parse()
        try:
            items = form.multi_items()
            files = {name: await part.read() for name, part in items if isinstance(part, UploadFile)}
            fields = {name: part.encode() for name, part in items if isinstance(part, str)}
        finally:
            await form.close()
    except (MultiPartException, LookupError, UnicodeError) as error:  # LookupError: no boundary
        raise RequestError(f"the body is not {MULTIPART}: {getattr(error, 'message', error)}") from error
    if len(files | fields) < len(items):
        raise RequestError("two parts of the multipart body have one name; give each its own")
    message = fields.get(REQUEST_PART, files.get(REQUEST_PART))
    if message is None:
        raise RequestError(f"the multipart body has no part {REQUEST_PART!r}, which holds the JSON")
    return _parse(message, kind, limits), _from_parts(files)


def _parse(body: bytes, kind: type[Message], limits: ServiceLimits) -> Message:
    # Every value in JSON takes two bytes, but a hundred when it was read: too many are refused before that.
    if body.count(b",") > limits.tweets * (limits.text_characters + _MORE_COMMAS):
        raise InputError(f"the request has more values than {limits.tweets} tweets can have; split it")
    try:
        message: Message = request_model(limits, kind).model_validate_json(body)
    except ValidationError as error:
        what, line = first_error(error, "request")
        raise (RequestError if what == "json_invalid" else InputError)(line) from error
    return message


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise PictureError(f"a picture must be the base64 of an image file ({error})") from error


def _from_parts(parts: Mapping[str, bytes]) -> Pictures:
    def picture(name: str) -> bytes:
        if name not in parts:
            raise PictureError(f"the request has no file part named {brief(name)}")
        return parts[name]

    return picture


def schemas(limits: ServiceLimits) -> dict[str, Any]:
    """The schemas, by name, of requests and problems, which OpenAPI descriptions refer to under `SCHEMAS`."""
    requests = [(request_model(limits, kind), "validation") for kind in (ExtractRequest, TriplesRequest)]
    models: Any = [*requests, (Problem, "serialization")]
    _, schema = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    return dict(schema["$defs"])


def request_body(kind: type[ExtractRequest | TriplesRequest]) -> dict[str, Any]:
    """The body's description for OpenAPI, in both content types."""
    request = {"$ref": f"{SCHEMAS}{kind.__name__}"}
    parts = {
        "type": "object",
        "required": [REQUEST_PART],
        "properties": {REQUEST_PART: request},
        "additionalProperties": {"type": "string", "format": "binary"},
    }
    encoding = {REQUEST_PART: {"contentType": JSON}}
    return {
        "required": True,
        "content": {JSON: {"schema": request}, MULTIPART: {"schema": parts, "encoding": encoding}},
    }
