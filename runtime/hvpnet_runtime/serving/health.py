"""Whether a backend or a grounder that failed once has failed for good."""

import logging
import time
from collections.abc import Callable

from hvpnet_runtime.grounding.finder import ObjectFinder
from hvpnet_runtime.grounding.search import Searcher
from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet

_PROBES, _PAUSE_SECONDS = 3, 0.5

_log = logging.getLogger(__name__)


def still_answers(pipeline: Pipeline) -> bool:
    """Ask for a tweet of two words, up to three times. Blocks meanwhile, as the backend runs."""
    tweet = Tweet(words=["a", "b"], head=(0, 1), tail=(1, 2))
    return _succeeds(f"the backend {pipeline.backend.name}", lambda: pipeline.run([pipeline.prepare(tweet)]))


def still_finds(finder: ObjectFinder | Searcher) -> bool:
    """Search a black picture, up to three times; see `still_answers`."""
    return _succeeds("the grounder", finder.probe)


def _succeeds(name: str, probe: Callable[[], object]) -> bool:
    for attempt in range(_PROBES):
        time.sleep(attempt * _PAUSE_SECONDS)
        try:
            probe()
        except Exception:
            _log.warning("%s fails", name, exc_info=True)
        else:
            return True
    return False
