"""Tweets as the body of a request: JSON, and each distinct picture once beside it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from hvpnet_runtime.bundle import PictureSpec
from hvpnet_runtime.errors import InputError, PictureError, TextError, brief
from hvpnet_runtime.preprocessing.given import items
from hvpnet_runtime.preprocessing.mark_pair import check_span
from hvpnet_runtime.preprocessing.pictures import open_picture, picture_name, read_file
from hvpnet_runtime.serving.errors import BodyTooLargeError
from hvpnet_runtime.types import Picture, Rejection, Tweet

_PART_BYTES = 256  # around each part of a multipart body, and of a picture's name in the JSON
_REQUEST_BYTES = 1024  # around the tweets
_LONGEST_SPAN = 2**31


@dataclass(frozen=True)
class Limits:
    """What a service takes in one request.

    Attributes:
        tweets: at most.
        body_bytes: of the body.
    """

    tweets: int
    body_bytes: int


@dataclass(frozen=True)
class Encoded:
    """A tweet, ready to be sent.

    Attributes:
        row: its place among the tweets, from 0.
        id: stays here, since it may be anything; the answer gets it again.
        values: what JSON says of it, pictures apart.
        image: the bytes of the whole picture's file.
        objects: those of the crops; None where they are not given.
        nbytes: of `values` as JSON.
    """

    row: int
    id: Any
    values: dict[str, Any]
    image: bytes | None
    objects: tuple[bytes, ...] | None
    nbytes: int

    @property
    def pictures(self) -> tuple[bytes, ...]:
        """All of them."""
        return (*(() if self.image is None else (self.image,)), *(self.objects or ()))


Item: TypeAlias = Encoded | Rejection


@dataclass
class Batch:
    """Tweets for one request, and between them those that need not be sent, in order."""

    limits: Limits
    items: list[Item] = field(default_factory=list)
    _nbytes: int = _REQUEST_BYTES
    _pictures: set[bytes] = field(default_factory=set)

    def has_room(self, item: Item) -> bool:
        """Whether the request stays within the limits with one more."""
        return len(self.items) < self.limits.tweets and self._nbytes + self._more(item) <= self.limits.body_bytes

    def add(self, item: Item) -> None:
        """Add one."""
        self._nbytes += self._more(item)
        if isinstance(item, Encoded):
            self._pictures.update(item.pictures)
        self.items.append(item)

    def _more(self, item: Item) -> int:
        return _nbytes(item, set(item.pictures) - self._pictures) if isinstance(item, Encoded) else 0


def _nbytes(item: Encoded, pictures: set[bytes]) -> int:
    return item.nbytes + _PART_BYTES * len(item.pictures) + sum(_PART_BYTES + len(picture) for picture in pictures)


def encode(row: int, tweet: Tweet, most_bytes: int) -> Item:
    """A tweet as it is sent, or why it cannot be; whatever is wrong with it must neither stop a stream nor vanish.

    Args:
        row: its place among the tweets, from 0.
        tweet: whatever a user gave.
        most_bytes: of a request; what is larger alone need not be sent.
    """
    try:
        return _encode(row, tweet, most_bytes)
    except MemoryError:
        raise  # says nothing about the tweet
    except Exception as error:
        return Rejection.of(row, getattr(tweet, "id", None), error)


def _encode(row: int, tweet: Tweet, most_bytes: int) -> Encoded:
    if not isinstance(tweet, Tweet):
        raise InputError(f"a tweet must be a Tweet, not {type(tweet).__name__}: make one with Tweet(text=...)")
    given: dict[str, Any] = {
        "text": None if tweet.text is None else _string("the text", tweet.text),
        "words": None if tweet.words is None else [_string("a word", word) for word in items("words", tweet.words)],
        "boxes": None if tweet.boxes is None else [_box(box) for box in items("boxes", tweet.boxes)],
        **{name: _span(name, getattr(tweet, name)) for name in ("head", "tail")},
    }
    values = {name: value for name, value in given.items() if value is not None}
    image = None if tweet.image is None else _file(tweet.image)
    objects = None if tweet.objects is None else tuple(_file(crop) for crop in items("objects", tweet.objects))
    encoded = Encoded(row, tweet.id, values, image, objects, len(_json(values)))
    if _REQUEST_BYTES + _nbytes(encoded, set(encoded.pictures)) > most_bytes:
        raise BodyTooLargeError(
            f"the tweet is larger than a request of {most_bytes} bytes; send smaller pictures or a shorter text"
        )
    return encoded


def body(asked: Mapping[str, Any], tweets: Sequence[Encoded]) -> dict[str, Any]:
    """The body, as arguments of httpx: the tweets, and what else is asked and not None."""
    names: dict[bytes, str] = {}
    for tweet in tweets:
        for picture in tweet.pictures:
            names.setdefault(picture, f"picture-{len(names)}")
    messages = [
        tweet.values
        | ({} if tweet.image is None else {"image": names[tweet.image]})
        | ({} if tweet.objects is None else {"objects": [names[crop] for crop in tweet.objects]})
        for tweet in tweets
    ]
    request = _json({name: value for name, value in asked.items() if value is not None} | {"tweets": messages})
    if not names:
        return {"content": request, "headers": {"Content-Type": "application/json"}}
    files = {name: (name, picture, "application/octet-stream") for picture, name in names.items()}
    return {"files": {"request": (None, request, "application/json"), **files}}


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _string(what: str, text: object) -> str:
    if not isinstance(text, str):
        raise TextError(f"{what} must be a string, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(f"{what} has half of a surrogate pair, which is no text; repair it") from error
    return text


def _span(name: str, span: Any) -> list[int] | None:  # noqa: ANN401  whatever a user gave
    """Integers; whether they lie in the text is for the service to say."""
    if span is None:
        return None
    return list(check_span(name, span, _LONGEST_SPAN, "characters or words"))


def _box(box: Any) -> list[float]:  # noqa: ANN401  whatever a user gave
    """Four numbers; whether they lie in the picture is for the service to say."""
    try:
        edges = [math.nan if isinstance(edge, str | bytes) else float(edge) for edge in items("a box", box)]
    except (TypeError, ValueError, OverflowError):
        edges = []
    if len(edges) != len(("x0", "y0", "x1", "y1")) or not all(map(math.isfinite, edges)):
        raise PictureError(f"box {brief(box)} is not four finite numbers (x0, y0, x1, y1)")
    return edges


def _file(picture: Picture) -> bytes:
    """The bytes of an image file with the picture's pixels: a path never leaves this machine."""
    if not isinstance(picture, Image.Image | np.ndarray):
        return read_file(picture, picture_name(picture))
    pixels = np.asarray(open_picture(picture, PictureSpec()))  # [height, width, 3]; leaves EXIF and profiles behind
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
