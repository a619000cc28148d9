"""The prefix cache against a naive model of an LRU under a byte limit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvpnet_runtime.prefix_cache import PrefixCache

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
STEPS = st.lists(st.tuples(st.booleans(), KEYS, st.integers(1, 6)))


@given(limit=st.integers(0, 12), steps=STEPS)
def test_equals_a_naive_model(limit: int, steps: list[tuple[bool, bytes, int]]) -> None:
    cache = PrefixCache(limit)
    model: list[tuple[bytes, int]] = []  # least recently used first
    hits = 0
    for is_put, key, size in steps:
        held = dict(model)
        if is_put:
            cache.put(key, np.zeros(size, np.uint8))
            if size <= limit:
                model = [entry for entry in model if entry[0] != key] + [(key, size)]
                while sum(kept for _, kept in model) > limit:
                    model.pop(0)
        else:
            found = cache.get(key)
            assert (found is not None) == (key in held)
            if found is not None:
                assert found.nbytes == held[key]
                hits += 1
                model = [entry for entry in model if entry[0] != key] + [(key, held[key])]
        assert cache.nbytes == sum(kept for _, kept in model)
        assert len(cache) == len(model)
    assert cache.hits == hits


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        PrefixCache(-1)


def test_threads_leave_the_books_balanced() -> None:
    cache = PrefixCache(100)

    def churn(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(500):
            key = bytes([rng.integers(20)])
            if cache.get(key) is None:
                cache.put(key, np.zeros(rng.integers(1, 30), np.uint8))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(churn, range(8)))
    assert cache.nbytes <= 100
    assert cache.hits + cache.misses == 8 * 500
    cache.clear()
    assert (cache.nbytes, len(cache)) == (0, 0)
