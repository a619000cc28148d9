"""Runs of what one replica has loaded: one after the other in a thread, and an eye on whether it still works."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hvpnet_runtime.errors import BackendError
from hvpnet_runtime.serving.errors import UnavailableError

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Turns:
    """Lets a part run, and judges it when it fails.

    Args:
        part: what runs, as messages call it.
        still_works: asked after a failure, in the same thread.
        answer_seconds: after which a run counts as one that does not come back.
    """

    def __init__(self, part: str, still_works: Callable[[], bool], answer_seconds: float) -> None:
        self._part, self._still_works, self._answer_seconds = part, still_works, answer_seconds
        self._thread = ThreadPoolExecutor(1, "hvpnet-run")  # one batch at a time, on a GPU too
        self._failure: Exception | None = None
        self._started = math.inf  # of the run that goes on
        self._idle = asyncio.Event()
        self._idle.set()

    def check(self) -> None:
        """Raise if the part is of no use any more.

        Raises:
            BackendError: it has failed for good, or does not come back from a run.
        """
        if self._failure is not None:
            raise BackendError(self._lost()) from self._failure
        if time.perf_counter() - self._started > self._answer_seconds:
            raise BackendError(f"{self._part} has not come back from a run")

    async def idle(self) -> None:
        """Wait until nothing runs.

        Ray's batcher closes a batch when its wait is over, even if the part is busy: under load it would queue up small
        batches. Whoever comes while it runs waits here, and all of them enter the batcher together.
        """
        await self._idle.wait()

    async def run(self, function: Callable[[_In], _Out], argument: _In) -> _Out:
        """Run a function of the part, while others wait in `idle`. What it raises is raised here.

        Raises:
            UnavailableError: the part has failed for good: this replica is about to be replaced.
        """
        if self._failure is not None:
            raise UnavailableError(self._lost()) from self._failure
        self._idle.clear()
        try:
            self._started = time.perf_counter()
            return await self._in_thread(lambda: function(argument))
        except Exception as error:
            self._started = time.perf_counter()  # of the question whether it still works
            if self._failure is None and not await self._in_thread(self._still_works):
                self._failure = error
            raise
        finally:
            self._started = math.inf
            self._idle.set()

    def _lost(self) -> str:
        return f"{self._part} failed for good: {self._failure}"

    async def _in_thread(self, function: Callable[[], _Out]) -> _Out:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
