"""Small parts of a computation on several cores, each on one: on CPUs faster than one large part on all of them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")
Map = Callable[[Callable[[_Part], _Result], Iterable[_Part]], Iterator[_Result]]


@contextmanager
def one_core_each(device: torch.device) -> Iterator[Map]:
    """Give a `map` whose calls run side by side on a CPU, each on one core; on a GPU one after the other.

    Results come in the order of the parts, and as every part is computed by one thread, their number does not depend on
    that of the cores. Measured on two cores with the small base: 1.5 times as fast in training as two threads on one
    batch, and many times where another process takes a core, since torch's threads wait for each other in every operation.

    Args:
        device: Where the model is.

    Yields:
        The `map`. Leaving the context early drops the parts that have not begun.
    """
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
