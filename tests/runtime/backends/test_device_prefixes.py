"""The pool of prefixes: nothing is lost when the device refuses, and few events are enough."""

import gc

import numpy as np
import pytest
from fake_cuda import FakeCuda, Status

from hvpnet_runtime.backends.device_prefixes import PrefixPool
from hvpnet_runtime.errors import BackendError, DeviceMemoryError

SIZE = 8


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


def source_of(cuda: FakeCuda, values: list[int]) -> int:
    pinned = cuda.malloc_host((len(values), SIZE), np.uint8)
    pinned[:] = np.array(values)[:, None]
    return int(pinned.ctypes.data)


def gathered(cuda: FakeCuda, pool: PrefixPool, prefixes: list, stream: int) -> list[int]:
    target = cuda.malloc_host((len(prefixes), SIZE), np.uint8)
    pool.gather(target.ctypes.data, prefixes, stream)
    cuda.synchronize(stream)
    return target[:, 0].tolist()


def test_one_event_and_one_copy_a_store(cuda: FakeCuda) -> None:
    pool, stream, other = PrefixPool(cuda, SIZE), cuda.stream(), cuda.stream()
    prefixes = pool.store(source_of(cuda, [1, 2, 3]), 3, stream)
    assert (cuda.recorded, cuda.copies) == (1, 1)
    assert gathered(cuda, pool, [prefixes[2], prefixes[0], prefixes[2]], other) == [3, 1, 3]
    assert cuda.copies == 2


def test_slots_wait_for_each_of_their_last_writers(cuda: FakeCuda) -> None:
    """Slots of several stores on another stream, none of which the device has begun."""
    pool, first, second = PrefixPool(cuda, SIZE), cuda.stream(), cuda.stream()
    dropped = [pool.store(source_of(cuda, [value] * 32), 32, first) for value in (1, 2)]
    del dropped
    gc.collect()
    kept = pool.store(source_of(cuda, list(range(64))), 64, second)
    assert gathered(cuda, pool, kept, second) == list(range(64))
    cuda.synchronize(first)
    assert gathered(cuda, pool, kept, second) == list(range(64))


def test_events_are_used_again(cuda: FakeCuda) -> None:
    pool, stream = PrefixPool(cuda, SIZE), cuda.stream()
    source = source_of(cuda, [1] * 16)
    for _ in range(40):
        pool.store(source, 16, stream)
    assert len(cuda.events) < 10
    pool.close()
    assert not cuda.events


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaEventCreateWithFlags", "cudaEventRecord"])
def test_a_store_that_fails_loses_no_slot(cuda: FakeCuda, call: str) -> None:
    pool, stream, source = PrefixPool(cuda, SIZE), cuda.stream(), source_of(cuda, [7] * 64)
    if call == "cudaEventRecord":
        pool.store(source, 1, stream)
    cuda.failing[call] = (1, Status.cudaErrorIllegalState)
    with pytest.raises(BackendError, match=f"{call} failed: cudaErrorIllegalState"):
        pool.store(source, 64, stream)
    gc.collect()
    allocations = cuda.allocations
    kept = pool.store(source, 64, stream)
    assert cuda.allocations == allocations + (call != "cudaEventRecord")
    assert gathered(cuda, pool, kept, stream) == [7] * 64


def test_a_smaller_block_where_memory_is_short(cuda: FakeCuda) -> None:
    pool, stream = PrefixPool(cuda, SIZE), cuda.stream()
    cuda.fake.limit = 20 * SIZE
    kept = pool.store(source_of(cuda, list(range(16))), 16, stream)
    with pytest.raises(DeviceMemoryError):
        pool.store(source_of(cuda, [1] * 16), 16, stream)
    assert gathered(cuda, pool, kept, stream) == list(range(16))


def test_a_closed_pool_stores_nothing(cuda: FakeCuda) -> None:
    pool, stream = PrefixPool(cuda, SIZE), cuda.stream()
    prefixes = pool.store(source_of(cuda, [1]), 1, stream)
    pool.close()
    pool.close()
    del prefixes
    gc.collect()
    with pytest.raises(BackendError, match="closed"):
        pool.store(source_of(cuda, [1]), 1, stream)
