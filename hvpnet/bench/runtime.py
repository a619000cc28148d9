"""The runtime's pipeline, watched where it hands over to the next stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvpnet.bench.subjects import Stopwatch, Variant
from hvpnet_runtime import Pipeline, Tweet


def load_subject(variant: Variant, bundle: Path, _checkpoint: Path) -> "RuntimeSubject":
    """The bundle on exactly this backend, at exactly this precision; raises HvpnetError if it does not run here so."""
    return RuntimeSubject(Pipeline.load(bundle, variant.backend, precision=variant.precision))


class RuntimeSubject:
    """From tweets to entities or relations by a pipeline; from now on each run of its two networks is a lap."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, backend = pipeline, pipeline.backend
        for name, stage in (("encode_pictures", "vision"), ("encode_text", "text")):
            setattr(backend, name, self._timed(getattr(backend, name), stage))

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """Answer the tweets as one batch; returns seconds by stage, which add up to the whole answer.

        Where a backend queues its work on a GPU, `text` includes the wait for `vision`.
        """
        self._watch = Stopwatch()
        batch = [self._pipeline.prepare(tweet) for tweet in tweets]
        self._watch.lap("prepare")
        self._pipeline.run(batch)
        self._watch.lap("decode")
        return self._watch.stages

    def _timed(self, network: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def timed(*inputs: object) -> object:
            self._watch.lap("normalise")
            outputs = network(*inputs)
            self._watch.lap(stage)
            return outputs

        return timed
