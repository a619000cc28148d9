"""Prefixes of pictures seen before, least recently used first out, under a byte limit."""

from collections import OrderedDict
from threading import Lock

from hvpnet_runtime.backends.base import Prefix


class PrefixCache:
    """Thread-safe LRU cache from a picture's key to its prefix.

    Attributes:
        hits: lookups answered.
        misses: lookups not answered.
        nbytes: sum of the sizes of the prefixes held.

    Args:
        max_bytes: limit on the sum of the prefixes' sizes; 0 keeps nothing.

    Raises:
        ValueError: the limit is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"the cache's limit must not be negative, it is {max_bytes}")
        self.max_bytes = max_bytes
        self.hits = self.misses = self.nbytes = 0
        self._prefixes: OrderedDict[bytes, Prefix] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._prefixes)

    def __contains__(self, key: object) -> bool:
        """Whether a prefix is held now. This is no use of it: it counts as neither hit nor miss, and keeps nothing."""
        return key in self._prefixes

    def get(self, key: bytes) -> Prefix | None:
        """The prefix of a picture, now the most recently used, or None."""
        with self._lock:
            prefix = self._prefixes.get(key)
            if prefix is None:
                self.misses += 1
                return None
            self.hits += 1
            self._prefixes.move_to_end(key)
            return prefix

    def put(self, key: bytes, prefix: Prefix) -> None:
        """Keep a prefix, at the cost of the least recently used ones; one larger than the limit is not kept."""
        if prefix.nbytes > self.max_bytes:
            return
        with self._lock:
            replaced = self._prefixes.pop(key, None)
            self.nbytes += prefix.nbytes - (0 if replaced is None else replaced.nbytes)
            self._prefixes[key] = prefix
            while self.nbytes > self.max_bytes:
                _, evicted = self._prefixes.popitem(last=False)
                self.nbytes -= evicted.nbytes

    def clear(self) -> None:
        """Forget every prefix."""
        with self._lock:
            self._prefixes.clear()
            self.nbytes = 0
