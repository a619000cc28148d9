"""The runtime's pipeline, watched where it hands over to the next stage."""

from pathlib import Path
from typing import Any, cast

from hvpnet.bench.subjects import Stopwatch, Variant
from hvpnet_runtime import Pipeline, Tweet
from hvpnet_runtime.backends import Backend

_NETWORKS = {"encode_pictures": "vision", "encode_text": "text"}


def load_subject(variant: Variant, bundle: Path, _checkpoint: Path) -> "RuntimeSubject":
    """The bundle on exactly this backend, at exactly this precision; raises HvpnetError if it does not run here so."""
    return RuntimeSubject(Pipeline.load(bundle, variant.backend, precision=variant.precision))


class RuntimeSubject:
    """From tweets to entities or relations by a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._watch = pipeline, Stopwatch()
        self._pipeline.backend = cast("Backend", _WatchedBackend(self._pipeline.backend, self._watch))

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """Answer the tweets as one batch; returns seconds by stage, which add up to the whole answer.

        Where a backend queues its work on a GPU, `text` includes the wait for `vision`.
        """
        self._watch.restart()
        batch = [self._pipeline.prepare(tweet) for tweet in tweets]
        self._watch.lap("prepare")
        self._pipeline.run(batch)
        self._watch.lap("decode")
        return self._watch.stages


class _WatchedBackend:
    """A backend whose two networks are laps of a stopwatch."""

    def __init__(self, backend: Backend, watch: Stopwatch) -> None:
        self._backend, self._watch = backend, watch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the backend has
        attribute = getattr(self._backend, name)
        if name not in _NETWORKS:
            return attribute

        def timed(*inputs: object) -> object:
            self._watch.lap("normalise")
            outputs = attribute(*inputs)
            self._watch.lap(_NETWORKS[name])
            return outputs

        return timed
