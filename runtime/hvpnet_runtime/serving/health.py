"""Whether a backend that failed once has failed for good."""

import logging
import time

from hvpnet_runtime.pipeline import Pipeline
from hvpnet_runtime.types import Tweet

_PROBES, _PAUSE_SECONDS = 3, 0.5

_log = logging.getLogger(__name__)


def still_answers(pipeline: Pipeline) -> bool:
    """Ask for a tweet of two words, up to three times. Blocks meanwhile, as the backend runs."""
    for attempt in range(_PROBES):
        time.sleep(attempt * _PAUSE_SECONDS)
        try:
            pipeline.run([pipeline.prepare(Tweet(words=["a", "b"], head=(0, 1), tail=(1, 2)))])
        except Exception:
            _log.warning("the backend %s fails", pipeline.backend.name, exc_info=True)
        else:
            return True
    return False
