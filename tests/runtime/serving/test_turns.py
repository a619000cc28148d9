"""Runs of a replica on Ray, without Ray: when its part is lost, and how requests take turns."""

import asyncio
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.serving.errors import UnavailableError
from hvpnet_runtime.serving.on_ray import turns as module
from hvpnet_runtime.serving.on_ray.turns import Turns


def fail(_: Any) -> Any:
    raise BackendError("the device is lost")


def test_a_part_that_failed_once_goes_on() -> None:
    async def scenario() -> None:
        turns = Turns("the backend of ner", lambda: True, 30)
        with pytest.raises(BackendError, match=r"^the device is lost$"):
            await turns.run(fail, 1)
        turns.check()
        assert await turns.run(lambda value: value + 1, 1) == 2

    asyncio.run(scenario())


def test_a_part_that_is_lost_is_unavailable_until_its_replica_is_replaced() -> None:
    async def scenario() -> None:
        turns = Turns("the backend of ner", lambda: False, 30)
        with pytest.raises(BackendError, match=r"^the device is lost$"):
            await turns.run(fail, 1)
        with pytest.raises(BackendError, match=r"^the backend of ner failed for good: the device is lost$"):
            turns.check()  # for which Ray replaces it
        with pytest.raises(UnavailableError, match=r"^the backend of ner failed for good: the device is lost$"):
            await turns.run(pytest.fail, "it was asked again")
        await turns.idle()

    asyncio.run(scenario())


def test_a_run_that_fails_late_is_no_run_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question whether the part still works has its own time, after which it counts as one that hangs."""
    clock = count(0, 20)  # seconds, from look to look
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    async def scenario() -> None:
        def still_works() -> bool:
            turns.check()
            with pytest.raises(BackendError, match="has not come back from a run"):
                turns.check()
            return True

        def fail_late(_: Any) -> Any:
            while next(clock) < 100:
                pass
            fail(_)

        turns = Turns("the backend of ner", still_works, 30)
        with pytest.raises(BackendError, match=r"^the device is lost$"):
            await turns.run(fail_late, 1)

    asyncio.run(scenario())


@pytest.mark.heavy  # imports Ray
def test_a_request_of_many_batches_takes_turns_with_others() -> None:
    from hvpnet_runtime.preprocessing.prepare import Prepared
    from hvpnet_runtime.serving.on_ray.inference import Call, Inference

    def prepared(number: int) -> Prepared:
        return Prepared(number, "", (), (), (), ())  # type: ignore[arg-type]

    replica: Any = object.__new__(Inference)
    replica._size, replica._turns = 2, Turns("the backend of ner", lambda: True, 30)
    batches: list[list[int]] = []

    async def run(call: Call) -> list[Any]:
        batches.append([each.tweet for each in call.tweets])
        await asyncio.sleep(0)
        return list(call.tweets)

    replica._run = run

    async def scenario() -> None:
        many, few = [prepared(number) for number in range(5)], [prepared(9)]
        assert await asyncio.gather(replica(many), replica(few)) == [many, few]

    asyncio.run(scenario())
    assert batches == [[0, 1], [9], [2, 3], [4]]
