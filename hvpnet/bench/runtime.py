"""The runtime's pipeline, called as users call it and watched where it hands over to the next stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from hvpnet.bench.stopwatch import Stopwatch
from hvpnet_runtime.backends import Backend, Prefix, TextInputs
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.preprocessing.prepare import Prepared
from hvpnet_runtime.types import Result, Tweet

SomePipeline = TypeVar("SomePipeline", bound=Pipeline)


def load_pipeline(kind: type[SomePipeline], bundle: Path | str, backend: str, precision: str) -> SomePipeline:
    """A pipeline of exactly this backend and precision.

    Raises:
        HvpnetError: the bundle cannot be loaded, or the backend does not run here, or not at this precision.
    """
    return cast("SomePipeline", kind.load(bundle, backend, precision=precision))


class RuntimeSubject:
    """See `Subject`.

    Args:
        bundle: its folder.
        backend: a name of `hvpnet_runtime.backends.BACKENDS`.
        precision: of its graphs.

    Raises:
        HvpnetError: as `load_pipeline`.
    """

    def __init__(self, bundle: Path | str, backend: str, precision: str) -> None:
        self._pipeline = load_pipeline(_WatchedPipeline, bundle, backend, precision)
        self._pipeline.backend = _WatchedBackend(self._pipeline.backend, self._pipeline.watch)

    def measure(self, tweets: list[Tweet]) -> dict[str, float]:
        """See `Subject`. Where a backend queues its work on a GPU, `text` includes the wait for `vision`."""
        self._pipeline.watch.restart()
        self._pipeline(tweets)
        return self._pipeline.watch.stages

    def close(self) -> None:
        """See `Subject`."""
        self._pipeline.close()


class _WatchedPipeline(Pipeline):
    watch = Stopwatch()  # one subject a process

    def run(self, batch: Sequence[Prepared]) -> list[Result]:
        self.watch.lap("prepare")
        results = super().run(batch)
        self.watch.lap("decode")
        return results


class _WatchedBackend:
    """A backend whose calls are laps of a stopwatch; see `Backend`."""

    def __init__(self, backend: Backend, watch: Stopwatch) -> None:
        self._backend, self._watch = backend, watch
        self.name, self.precision, self.close = backend.name, backend.precision, backend.close
        self.max_length = backend.max_length

    def encode_pictures(self, images: npt.NDArray[np.float32]) -> Sequence[Prefix]:
        self._watch.lap("normalise")
        prefixes = self._backend.encode_pictures(images)
        self._watch.lap("vision")
        return prefixes

    def encode_text(self, text: TextInputs, prefixes: Sequence[Sequence[Prefix]]) -> npt.NDArray[np.float32]:
        self._watch.lap("normalise")
        outputs = self._backend.encode_text(text, prefixes)
        self._watch.lap("text")
        return outputs
