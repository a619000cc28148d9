"""Prefixes of pictures seen before, least recently used first out, under a byte limit."""

from collections import OrderedDict
from threading import Lock

from hvpnet_runtime.backends.base import Prefix


class PrefixCache:
    """Thread-safe LRU cache from a picture's digest to its prefix.

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

    def get(self, digest: bytes) -> Prefix | None:
        """The prefix of a picture, now the most recently used, or None."""
        with self._lock:
            prefix = self._prefixes.get(digest)
            if prefix is None:
                self.misses += 1
                return None
            self.hits += 1
            self._prefixes.move_to_end(digest)
            return prefix

    def put(self, digest: bytes, prefix: Prefix) -> None:
        """Keep a prefix, at the cost of the least recently used ones; one larger than the limit is not kept."""
        if prefix.nbytes > self.max_bytes:
            return
        with self._lock:
            replaced = self._prefixes.pop(digest, None)
            self.nbytes += prefix.nbytes - (0 if replaced is None else replaced.nbytes)
            self._prefixes[digest] = prefix
            while self.nbytes > self.max_bytes:
                _, evicted = self._prefixes.popitem(last=False)
                self.nbytes -= evicted.nbytes

    def clear(self) -> None:
        """Forget every prefix."""
        with self._lock:
            self._prefixes.clear()
            self.nbytes = 0
