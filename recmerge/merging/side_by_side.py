"""Modules, tensors or blocks of rows worked on by several threads, each on one core, with few of them in memory.

BLAS keeps to the thread that calls it meanwhile: threads of its own would fight with ours, and small products cost them a hundred
times the work.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

_MOST = 4  # threads: more would hold more tensors at once than reading and writing one file keeps busy
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def n_threads() -> int:
    """Return how many threads work: one per core that this process may use, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST, cores)


def side_by_side(work: Callable[[_Part], _Result], parts: Iterable[_Part]) -> Iterator[_Result]:
    """Apply a function to parts in several threads; numpy's own work lets the other threads go on.

    Results come in the order of the parts, and each part is done by one thread, so nothing depends on how many there are. No
    more than one part beyond the number of threads is begun and not yet taken.

    Args:
        work: What to do; it must not depend on other parts.
        parts: What to do it to.

    Yields:
        One result per part. What a part raises is raised where its result would come, and later parts are dropped.
    """
    with threadpool_limits(1, "blas"):
        yield from _results(work, parts, n_threads())


def _results(work: Callable[[_Part], _Result], parts: Iterable[_Part], threads: int) -> Iterator[_Result]:
    if threads == 1:
        yield from map(work, parts)
        return
    pool = ThreadPoolExecutor(threads)
    begun: deque[Future[_Result]] = deque()
    try:
        for part in parts:
            if len(begun) > threads:
                yield begun.popleft().result()
            begun.append(pool.submit(work, part))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
