"""Waiting for what happens in other processes."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(condition: Callable[[], Found], patience: float = 60) -> Found:
    """What a condition says once it is true, within `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def settled(measure: Callable[[], Found]) -> Found:
    """What a measurement says once it stands still, where processes report every two seconds."""
    last = None
    while (now := measure()) != last:
        last = now
        time.sleep(3)
    return now
