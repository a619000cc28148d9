"""Calls of several threads share runs, in any order, and each gets its own result."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from time import sleep

import pytest

from hvpnet_runtime import InputError
from hvpnet_runtime.grounding.together import Together


def test_alone_a_call_is_a_run() -> None:
    runs: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        runs.append(list(items))
        return [2 * item for item in items]

    double = Together(run, 4)
    assert [double(number) for number in (3, 1)] == [6, 2]
    assert runs == [[3], [1]]


def test_what_comes_during_a_run_is_run_together_up_to_the_bound() -> None:
    runs: list[list[int]] = []
    begun, go_on = Event(), Event()

    def run(items: Sequence[int]) -> list[int]:
        runs.append(list(items))
        begun.set()
        assert go_on.wait(60)
        return [item * item for item in items]

    square = Together(run, 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(square, 10)
        assert begun.wait(60)
        others = [pool.submit(square, number) for number in range(7)]
        while len(square._waiting) < 7:
            sleep(0.001)
        go_on.set()
        assert first.result() == 100
        assert [other.result() for other in others] == [number * number for number in range(7)]
    assert [len(each) for each in runs] == [1, 3, 3, 1]
    assert sorted(item for each in runs[1:] for item in each) == list(range(7))


def test_an_error_reaches_everyone_in_the_run_and_nobody_else() -> None:
    begun, go_on = Event(), Event()

    def run(items: Sequence[int]) -> list[int]:
        if 0 in items:
            begun.set()
            assert go_on.wait(60)
        elif -1 in items:
            raise ValueError("bad one")
        return list(items)

    same = Together(run, 2)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(same, 0)
        assert begun.wait(60)
        waiting = []
        for number in (-1, 5, 6):
            waiting.append(pool.submit(same, number))
            while len(same._waiting) < len(waiting):
                sleep(0.001)
        go_on.set()
        assert first.result() == 0
        errors = [failed.exception() for failed in waiting[:2]]
        assert [(type(error), str(error)) for error in errors] == [(ValueError, "bad one")] * 2
        assert errors[0] is not errors[1]
        assert waiting[2].result() == 6
    assert same(7) == 7


def test_many_threads_each_get_their_own() -> None:
    same, start, found = Together(lambda items: [item + 1 for item in items], 4), Barrier(8), {}

    def ask(thread: int) -> None:
        start.wait()
        for number in range(200):
            found[thread, number] = same(1000 * thread + number)

    threads = [Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {(t, n): 1000 * t + n + 1 for t in range(8) for n in range(200)}


def test_an_interrupt_is_of_its_own_thread_and_the_others_try_again() -> None:
    begun, go_on = Event(), Event()
    runs: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        runs.append(list(items))
        if len(runs) == 1:
            begun.set()
            assert go_on.wait(60)
        elif len(runs) == 2:
            raise KeyboardInterrupt
        return [item + 1 for item in items]

    following = Together(run, 3)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(following, 0)
        assert begun.wait(60)
        others = [pool.submit(following, number) for number in (10, 20, 30)]
        while len(following._waiting) < 3:
            sleep(0.001)
        go_on.set()
        assert first.result() == 1
        errors = [type(other.exception()) for other in others]
    assert errors.count(KeyboardInterrupt) == 1
    assert errors.count(type(None)) == 2
    assert {other.result() for other in others if other.exception() is None} < {11, 21, 31}
    assert len(runs[2]) == 2  # both at once, and the interrupted one no more
    assert not following._waiting


@pytest.mark.parametrize("answers", [[], [1, 2]])
def test_another_number_of_results_than_of_items_is_an_error(answers: list[int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        Together(lambda _: answers, 4)(1)


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_a_run_has_at_least_one_item(most: int) -> None:
    with pytest.raises(InputError, match="at least 1, not"):
        Together(list, most)
    together = Together[int, int](list, 2)
    with pytest.raises(InputError, match="at least 1, not"):
        together.most = most
    assert together(5) == 5
