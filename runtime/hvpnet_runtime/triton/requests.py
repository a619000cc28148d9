"""Requests to the Python model: BYTES tensors to tweets, and results back.

A request has B rows, one tweet each:

    TWEET    [B, 1]   a JSON object with the keys of a line of JSON lines, but for the pictures
    IMAGE    [B, 1]   optional: the bytes of the picture's file
    OBJECTS  [B, K]   optional: the bytes of the object crops' files, most important first; without it and without
                      boxes, objects are found in the picture if the bundle has a grounder
    RESULT   [B, 1]   the answer, a JSON object as in JSON lines

An empty string is a picture that is not there. Pictures are never paths: these would be files of the server.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hvpnet_runtime.errors import InputError
from hvpnet_runtime.jsonl import parse_line, tweet_from_dict
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.types import Result, Tweet

Strings: TypeAlias = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Request:
    """The tensors of one request, of bytes objects; those that it lacks are None."""

    tweets: Strings
    images: Strings | None = None
    objects: Strings | None = None


def answer(pipeline: Pipeline, requests: Sequence[Request]) -> list[Strings | Exception]:
    """Run requests as one batch.

    Returns:
        For each, in order, RESULT, or the error that this request alone fails with. Only where the engines fail, all
        do.
    """
    prepared = [_prepare(pipeline, request) for request in requests]
    batch = [tweet for tweets in prepared if not isinstance(tweets, Exception) for tweet in tweets]
    try:
        results = iter(pipeline.run(batch))
    except Exception as error:
        return [tweets if isinstance(tweets, Exception) else error for tweets in prepared]
    return [
        tweets if isinstance(tweets, Exception) else _encoded([next(results) for _ in tweets]) for tweets in prepared
    ]


def read_tweet(text: bytes, image: bytes = b"", objects: Sequence[bytes] | None = None) -> Tweet:
    """A tweet from a row of the tensors.

    Raises:
        InputError: the text is not a JSON object in UTF-8, or has an unknown key or a value of the wrong type.
    """
    try:
        values = parse_line(text.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"TWEET is not UTF-8: {error}") from error
    if pictures := {"image", "objects"} & values.keys():
        raise InputError(f"TWEET has {' and '.join(sorted(pictures))}: pictures are the inputs IMAGE and OBJECTS")
    crops = None if objects is None else [picture for picture in objects if picture]
    return replace(tweet_from_dict(values, Path()), image=image or None, objects=crops)


def _prepare(pipeline: Pipeline, request: Request) -> list[Prepared] | Exception:
    """Whatever is wrong with a request must not fail those that it was batched with."""
    tweets: list[Prepared] = []
    for row in range(len(request.tweets)):
        try:
            image = b"" if request.images is None else request.images[row].item()
            objects = None if request.objects is None else request.objects[row].tolist()
            tweets.append(pipeline.prepare(read_tweet(request.tweets[row].item(), image, objects)))
        except InputError as error:
            return error if len(request.tweets) == 1 else type(error)(f"tweet {row}: {error}")
        except Exception as error:
            return error
    return tweets


def _encoded(results: Sequence[Result]) -> Strings:
    # Escaped to ASCII: half a surrogate pair, which only an id can hold, has no UTF-8.
    rows = [[json.dumps(result.to_dict()).encode()] for result in results]
    return np.array(rows, np.object_)
