"""Calls of several threads as one: whoever finds nobody at work does what waits, and the others wait for it."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Together(Generic[In, Out]):
    """A function of several items, called with one; thread-safe. It runs in one thread at a time.

    Attributes:
        most: items of one run.

    Args:
        run: makes a result of each item, in order.
        most: see above.
    """

    def __init__(self, run: Callable[[Sequence[In]], Sequence[Out]], most: int) -> None:
        self.most = most
        self._run, self._turn = run, Lock()
        self._waiting: deque[tuple[In, Future[Out]]] = deque()

    def __call__(self, item: In) -> Out:
        """The result of an item, which may be made together with those of other threads.

        What the function raises, every thread whose item was in that run raises.
        """
        result: Future[Out] = Future()
        self._waiting.append((item, result))
        while not result.done():
            with self._turn:
                if not result.done():  # else another thread made it while this one waited for its turn
                    self._run_next()
        return result.result()

    def _run_next(self) -> None:
        calls = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
        try:
            outcomes = self._run([item for item, _ in calls])
        except BaseException as error:
            for _, result in calls:
                result.set_exception(error)
        else:
            for (_, result), outcome in zip(calls, outcomes, strict=True):
                result.set_result(outcome)
