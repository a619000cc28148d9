"""Batches that the device's memory does not suffice for are done in halves."""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

from hvpnet_runtime.errors import DeviceMemoryError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 64
"""Parts that must have fitted before twice as many rows are tried: what took the memory may be gone by then. The number
doubles with every attempt, for those in vain cost a failed run each."""


@dataclass
class _Limit:
    """Rows that fit, the parts of that size since it was learnt, and how many it takes to try more."""

    rows: int
    fitted: int = 0
    patience: int = _PATIENCE


class Halving:
    """How many rows fit the device's memory, learnt as they are run. Thread-safe.

    Args:
        name: of the backend, for the warning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._limits: dict[Hashable, _Limit] = {}
        self._lock = Lock()

    def run(self, what: Hashable, rows: int, most: int, part: Callable[[slice], T]) -> list[T]:
        """Run rows in parts.

        A part for which memory does not suffice is halved until it does, with one warning. Later ones of its kind are
        no larger, until so many fitted that more is tried again.

        Args:
            what: the kind of the rows, for instance the graph and the length of the texts.
            rows: how many.
            most: rows of one part.
            part: runs some of them.

        Returns:
            What `part` returned, in order.

        Raises:
            DeviceMemoryError: memory does not suffice for one row.
        """
        done: list[T] = []
        start, refused, reason = 0, 0, ""
        while start < rows:
            count = min(rows - start, self._fitting(what, most))
            try:
                done.append(part(slice(start, start + count)))
            except DeviceMemoryError as error:
                if count == 1:
                    raise
                refused, reason = max(refused, count), str(error)
                self._refuse(what, count)
            else:
                start += count
                self._accept(what, count, most)
                if refused:
                    _log.warning(
                        "%s: %s; batches of %d run as %d for the time being: lower the batch size, or free memory of"
                        " the GPU",
                        self._name,
                        reason,
                        refused,
                        count,
                    )
                    refused = 0
        return done

    def _fitting(self, what: Hashable, most: int) -> int:
        with self._lock:
            return min(most, self._limits[what].rows) if what in self._limits else most

    def _refuse(self, what: Hashable, count: int) -> None:
        """Learn that so many rows do not fit; another thread may know meanwhile that fewer do not either."""
        half = 1 << ((count - 1).bit_length() - 1)  # rows are padded to a power of two: that takes half the memory
        with self._lock:
            limit = self._limits.setdefault(what, _Limit(half))
            limit.rows, limit.fitted = min(limit.rows, half), 0

    def _accept(self, what: Hashable, count: int, most: int) -> None:
        """Note that so many rows fitted; after enough of them, allow twice as many."""
        with self._lock:
            limit = self._limits.get(what)
            if limit is None or count < min(limit.rows, most):
                return
            if limit.rows >= most:
                del self._limits[what]
                return
            limit.fitted += 1
            if limit.fitted == limit.patience:
                limit.rows, limit.fitted, limit.patience = 2 * limit.rows, 0, 2 * limit.patience
