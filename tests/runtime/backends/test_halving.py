"""Batches that memory does not suffice for: halved, remembered, and tried again later."""

import logging

import pytest

from hvpnet_runtime.backends.halving import Halving
from hvpnet_runtime.errors import DeviceMemoryError


class Memory:
    """Runs parts of up to `room` rows, and notes how many each had."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, list[int]()

    def __call__(self, part: slice) -> range:
        rows = part.stop - part.start
        self.tried.append(rows)
        if rows > self.room:
            raise DeviceMemoryError("no memory")
        return range(part.start, part.stop)


def run(halving: Halving, memory: Memory, rows: int = 32) -> list[int]:
    """The parts of one batch that were tried."""
    memory.tried.clear()
    done = halving.run("text", rows, 32, memory)
    assert [row for part in done for row in part] == list(range(rows))
    return list(memory.tried)


def test_a_batch_is_halved_until_it_fits_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    halving, memory = Halving("tensorrt"), Memory(9)
    with caplog.at_level(logging.WARNING, "hvpnet_runtime"):
        assert run(halving, memory) == [32, 16, 8, 8, 8, 8]
        assert run(halving, memory) == [8] * 4
        assert run(halving, memory, 5) == [5]
    (record,) = caplog.records
    assert "tensorrt: no memory; batches of 32 run as 8 for the time being" in record.getMessage()
    memory.room = 0
    with pytest.raises(DeviceMemoryError):
        run(halving, memory, 1)


def test_after_a_passing_shortage_larger_batches_run_again() -> None:
    halving, memory = Halving("tensorrt"), Memory(8)
    run(halving, memory)
    memory.room = 32
    seen = [size for _ in range(100) for size in run(halving, memory)]
    assert seen[:60] == [8] * 60
    assert seen.count(8) < 70
    assert 120 < seen.count(16) < 140  # a step up takes twice as many parts as the one before
    assert seen[-1] == 32
    memory.room = 4  # it is forgotten: a new shortage is learnt anew
    assert run(halving, memory)[:4] == [32, 16, 8, 4]


def test_a_lasting_shortage_is_tried_ever_more_seldom() -> None:
    halving, memory = Halving("tensorrt"), Memory(16)
    for _ in range(1000):
        run(halving, memory, 32)
    seen = [size for _ in range(1000) for size in run(halving, memory)]
    assert seen.count(32) <= 1
    assert run(halving, memory, 16) == [16]


def test_what_another_thread_learnt_to_be_too_much_stays_so() -> None:
    halving, memory = Halving("tensorrt"), Memory(2)

    def meanwhile(part: slice) -> None:
        if part.stop - part.start == 32:
            run(halving, memory)  # another thread learns that no more than 2 fit
            raise DeviceMemoryError("no memory")
        memory(part)

    halving.run("text", 32, 32, meanwhile)
    assert set(run(halving, memory)) == {2}
