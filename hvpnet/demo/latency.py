"""Eager PyTorch against the runtime on the same tweets: in turn, one tweet at a time, from files to tags."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

from tokenizers import Tokenizer

from hvpnet.bench.eager import EagerBackend, EagerPipeline
from hvpnet.bench.statistics import Summary, interleave
from hvpnet.modeling.model import HVPNeT
from hvpnet.modeling.visual_prefix import PICTURES
from hvpnet_runtime import Pipeline, Tweet


def measure(model: HVPNeT, tokenizer: Tokenizer, pipeline: Pipeline, tweets: Sequence[Tweet]) -> dict[str, Summary]:
    """Milliseconds per tweet of each way of tagging them.

    All ways are in this process, and warmed up on the first tweet; `hvpnet bench` measures more strictly.
    """
    eager = EagerPipeline(EagerBackend(deepcopy(model)), tokenizer, PICTURES)  # a copy, for it may move to a GPU

    def new_pictures(tweet: Tweet) -> None:
        pipeline.cache.clear()
        pipeline([tweet])

    # The last way follows the one that leaves the tweet's pictures in the cache.
    ways: dict[str, Callable[[Tweet], object]] = {
        "eager": lambda tweet: eager.run([eager.prepare(tweet)]),
        "runtime_new_pictures": new_pictures,
        "runtime_seen_pictures": lambda tweet: pipeline([tweet]),
    }

    def timed(run: Callable[[Tweet], object], number: int) -> float:
        start = time.perf_counter()
        run(tweets[number % len(tweets)])
        return 1000 * (time.perf_counter() - start)

    turns = interleave({name: partial(timed, run) for name, run in ways.items()}, least=len(tweets))
    return {name: Summary.of(taken) for name, taken in turns.items()}
