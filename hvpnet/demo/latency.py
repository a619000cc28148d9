"""Eager PyTorch against the runtime on the same tweets: interleaved, one tweet at a time, from files to tags."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from hvpnet.features import SPEC, picture_slots
from hvpnet.model import HVPNeT
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.pictures import blank, load_pixels, normalise


@dataclass(frozen=True)
class Latency:
    """Milliseconds per tweet at batch 1."""

    minimum: float
    median: float


def measure(model: HVPNeT, pipeline: Pipeline, tweets: Sequence[Tweet]) -> dict[str, Latency]:
    """Time each way of tagging the tweets.

    Every way is warmed up on the first tweet, then all of them take turns tweet by tweet, so that a slow moment of the
    machine falls on all alike. Pictures are decoded and texts tokenised by the same code each time.
    """
    encoder = pipeline.text_encoder

    def eager(tweet: Tweet) -> None:
        encoding = encoder.encode_entities(tweet.words or ())
        ids, mask = (torch.from_numpy(array) for array in encoder.pad([encoding]))  # [1, T]
        pixels = [None if path is None else load_pixels(path, SPEC) for path in picture_slots(tweet, model.config)]
        images = np.concatenate([blank(SPEC) if each is None else normalise(each[None], SPEC) for each in pixels])
        with torch.inference_mode():
            prefix = model.encode_pictures(torch.from_numpy(images))[None]  # [1, pictures, layers, 2, P * hidden]
            model.decode(model(ids, mask, prefix), mask)

    def first_seen(tweet: Tweet) -> None:
        pipeline.cache.clear()
        pipeline([tweet])

    def seen_before(tweet: Tweet) -> None:
        pipeline([tweet])

    # seen_before follows first_seen, which leaves the tweet's pictures in the cache.
    ways = {"eager PyTorch": eager, "runtime, new pictures": first_seen, "runtime, pictures seen before": seen_before}
    for run in ways.values():
        run(tweets[0])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for tweet in tweets:
        for name, run in ways.items():
            times[name].append(_milliseconds(run, tweet))
    return {name: Latency(min(taken), median(taken)) for name, taken in times.items()}


def _milliseconds(run: Callable[[Tweet], None], tweet: Tweet) -> float:
    start = time.perf_counter()
    run(tweet)
    return 1000 * (time.perf_counter() - start)
