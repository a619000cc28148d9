"""Calls of several threads as one: whoever finds nobody at work does what waits, and the others wait for it."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import copy
from threading import Lock
from typing import Generic, TypeVar

from hvpnet_runtime.errors import InputError, brief

In = TypeVar("In")
Out = TypeVar("Out")


class Together(Generic[In, Out]):
    """A function of several items, called with one; thread-safe. It runs in one thread at a time.

    Attributes:
        most: items of one run.

    Args:
        run: makes a result of each item, in order.
        most: see above.

    Raises:
        InputError: `most` is no whole number above 0, here or where it is set.
    """

    def __init__(self, run: Callable[[Sequence[In]], Sequence[Out]], most: int) -> None:
        self.most = most
        self._run, self._turn = run, Lock()
        self._waiting: deque[tuple[In, Future[Out]]] = deque()

    @property
    def most(self) -> int:
        """See above."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        if type(most) is not int or most < 1:
            raise InputError(f"a run takes a whole number of items, at least 1, not {brief(most)}")
        self._most = most

    def __call__(self, item: In) -> Out:
        """The result of an item, which may be made together with those of other threads.

        An exception of the function reaches every thread whose item was in that run, each as an exception of its own.
        What is no `Exception`, such as Ctrl+C, is of the thread that it interrupts: the others try again.

        Raises:
            ValueError: the function has fewer or more results than items.
        """
        result: Future[Out] = Future()
        self._waiting.append((item, result))
        while not result.done():
            with self._turn:
                if not result.done():  # else another thread made it while this one waited for its turn
                    self._run_next(result)
        if (error := result.exception()) is not None:
            raise copy(error) from error  # threads that raise the same object write its traceback at once
        return result.result()

    def _run_next(self, own: Future[Out]) -> None:
        """Run what waits, in the thread that asks for the result `own`."""
        calls = [self._waiting.popleft() for _ in range(min(self.most, len(self._waiting)))]
        try:
            outcomes = list(zip(calls, self._run([item for item, _ in calls]), strict=True))
        except Exception as error:
            for _, result in calls:
                result.set_exception(error)
        except BaseException:
            self._waiting.extendleft(reversed([call for call in calls if call[1] is not own]))
            raise
        else:
            for (_, result), outcome in outcomes:
                result.set_result(outcome)
