"""Parts handed out to processes of this machine, which live no longer than the run."""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread

from hvpnet_runtime.bulk.source import Part
from hvpnet_runtime.bulk.worker import Done, Failed, outcome_of
from hvpnet_runtime.errors import BulkError

_IN_HAND = 2  # parts that a process has, so that the next lies ready while this one is written

_spawn = get_context("spawn")  # a fork would copy no thread of a library that has some
_log = logging.getLogger(__name__)


def annotate_in_processes(
    annotate: Callable[[Part], Done], parts: Sequence[Part], gpus: Sequence[str | None]
) -> Generator[Done]:
    """Annotate parts; they come as they are finished, in any order.

    Args:
        annotate: does a part; copied to every process.
        parts: what to do.
        gpus: a process for each: its GPU as in `CUDA_VISIBLE_DEVICES`, or None to leave that as it is.

    Raises:
        HvpnetError: what `annotate` raised, of the same class.
        BulkError: a process ended.
    """
    todo = deque(parts)
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(annotate, gpu) for gpu in gpus)
        for _ in range(_IN_HAND):
            for worker in workers:
                worker.give(todo)
        while busy := [worker for worker in workers if worker.in_hand]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    done = worker.take()
                    worker.give(todo)
                    yield done
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process and what it has in hand, in order."""

    def __init__(self, annotate: Callable[[Part], Done], gpu: str | None) -> None:
        self.in_hand: deque[Part] = deque()
        self.connection, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_work, args=(annotate, theirs, gpu), daemon=True)
        self._process.start()
        theirs.close()  # only the process holds it now, so that its end is seen here

    def give(self, todo: deque[Part]) -> None:
        """Hand over the next part, if there is one."""
        if todo:
            part = todo.popleft()
            self.in_hand.append(part)
            try:
                self.connection.send(part)
            except OSError as error:
                raise self._ended() from error

    def take(self) -> Done:
        """The first part in hand, once it is done."""
        try:
            outcome: Done | Failed = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if isinstance(outcome, Failed):
            _log.info("%s", outcome.trace)
            raise outcome.error
        self.in_hand.popleft()
        return outcome

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _ended(self) -> BulkError:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return BulkError(
            f"the process at the part of row {self.in_hand[0].first} ended {how}, for want of memory or by a crash of "
            "the backend: run again to go on"
        )


def _work(annotate: Callable[[Part], Done], connection: Connection, gpu: str | None) -> None:
    """The process: a part in, its outcome out, until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all, and who began the run ends the others
    Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when the bundle is loaded
    while True:
        connection.send(outcome_of(annotate, connection.recv()))


def _end_with_parent() -> None:
    """Whatever is in hand would be written by nobody."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
