"""Paired ratios: ours and theirs in turn, so that whatever else the machine does strikes both alike."""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


def paired(
    benchmark: BenchmarkFixture, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int = 1
) -> None:
    """Times A B A B. The table shows ours; `extra_info` gets the times of one call and the ratios, and is printed.

    `ratio_of_minima` is what both can do, `median_ratio` the median over the pairs. Work of microseconds is done
    `calls` times in a row by us, for the first call after theirs finds its data out of the caches.
    """
    times: list[float] = []

    def time_theirs() -> None:
        start = perf_counter()
        theirs()
        times.append(perf_counter() - start)

    ours()
    time_theirs()
    times.clear()
    benchmark.pedantic(lambda: [ours() for _ in range(calls)], setup=time_theirs, rounds=rounds)
    own = [seconds / calls for seconds in benchmark.stats.stats.data]
    ratios = [other / mine for other, mine in zip(times, own, strict=True)]
    benchmark.extra_info |= {
        "ratio_of_minima": round(min(times) / min(own), 2),
        "median_ratio": round(median(ratios), 2),
        "ours_ms": {"min": round(1e3 * min(own), 3), "median": round(1e3 * median(own), 3)},
        "theirs_ms": {"min": round(1e3 * min(times), 3), "median": round(1e3 * median(times), 3)},
    }
    print(benchmark.name, benchmark.extra_info)
