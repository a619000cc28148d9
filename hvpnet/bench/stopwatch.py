"""The stages of an answer, timed where one hands over to the next."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

STAGES = ("prepare", "ground", "normalise", "vision", "text", "decode")
"""Tokenise, decode and resize pictures, and cut what the grounder found out of them; the grounder's network, where
objects are found; normalise pictures (PyTorch) or look up what was seen before; the two networks; Viterbi and
entities."""


class Stopwatch:
    """Times a pipeline, `hvpnet_runtime.Pipeline` or `EagerPipeline`; from now on each run of its networks is a lap."""

    def __init__(self, pipeline: Any) -> None:  # noqa: ANN401  what one prepares is not what the other runs
        self._pipeline, backend = pipeline, pipeline.backend
        backend.encode_pictures = self._timed(backend.encode_pictures, "normalise", "vision")
        backend.encode_text = self._timed(backend.encode_text, "normalise", "text")
        if pipeline.finder is not None:
            grounder = pipeline.finder.grounder
            grounder.find_objects = self._timed(grounder.find_objects, "prepare", "ground")

    def measure(self, tweets: Sequence[Any]) -> dict[str, float]:
        """Answer the tweets as one batch; returns seconds by stage, which add up to the whole answer.

        Where a backend queues its work on a GPU, `text` includes the wait for `vision`.
        """
        self._stages, self._last = dict.fromkeys(STAGES, 0.0), perf_counter()
        batch = [self._pipeline.prepare(tweet) for tweet in tweets]
        self._lap("prepare")
        self._pipeline.run(batch)
        self._lap("decode")
        return self._stages

    def _timed(self, network: Callable[..., Any], before: str, stage: str) -> Callable[..., Any]:
        def timed(*inputs: object) -> object:
            self._lap(before)
            outputs = network(*inputs)
            self._lap(stage)
            return outputs

        return timed

    def _lap(self, stage: str) -> None:
        """Count what has passed since the last lap to this stage."""
        now = perf_counter()
        self._stages[stage] += now - self._last
        self._last = now
