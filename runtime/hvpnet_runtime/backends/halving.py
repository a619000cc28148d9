"""Batches that the device's memory does not suffice for are done in halves."""

import logging
from collections.abc import Callable, Hashable
from typing import TypeVar

from hvpnet_runtime.errors import DeviceMemoryError

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Halving:
    """How many rows fit the device's memory, learnt as they are run. Thread-safe.

    Args:
        name: of the backend, for the warning.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._fitting: dict[Hashable, int] = {}

    def run(self, what: Hashable, rows: int, most: int, part: Callable[[slice], T]) -> list[T]:
        """Run rows in parts.

        A part for which memory does not suffice is halved until it does, with one warning, and no later one of its kind
        is larger.

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
            count = min(rows - start, most, self._fitting.get(what, most))
            try:
                done.append(part(slice(start, start + count)))
            except DeviceMemoryError as error:
                if count == 1:
                    self._fitting.pop(what, None)  # the batch was not what took the memory
                    raise
                refused, reason = max(refused, count), str(error)
                # Rows are padded to a power of two: the one below takes half the memory.
                self._fitting[what] = 1 << ((count - 1).bit_length() - 1)
            else:
                start += count
                if refused:
                    _log.warning(
                        "%s: %s; batches of %d are run as %d from now on: lower the batch size, or free memory of the"
                        " GPU",
                        self._name,
                        reason,
                        refused,
                        count,
                    )
                    refused = 0
        return done
