"""How a service stops: it refuses new requests, and waits for those in hand."""

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


def finish(close: Callable[[], int], seconds: float, look_seconds: float) -> None:
    """Refuse new requests, and let those in hand be answered.

    Args:
        close: refuses new requests, and says how many are in hand still.
        seconds: that they get.
        look_seconds: between two looks.
    """
    deadline = time.monotonic() + seconds
    while in_hand := close():
        if time.monotonic() > deadline:
            _log.warning(
                "%d requests in hand were not answered: they took longer than stop_seconds, %g", in_hand, seconds
            )
            return
        time.sleep(look_seconds)
