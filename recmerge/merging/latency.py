"""What a merged adapter adds to the time of one linear layer."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

_ENTRIES = 2**22  # of the weight that is timed, at most
_REPEATS = 9


def linear_latency(shapes: Sequence[tuple[int, int]], rank: int) -> dict[str, Any]:
    """Time y = W x beside y = W x + B (A x) for one token in float32 with numpy.

    A measurement of this machine, to compare rank-outs by: of one token, the smallest batch, to which a rank adds the most.

    Args:
        shapes: (out, in) of the modules; the largest of at most 2^22 entries is timed, else the smallest with its rows cut.
        rank: R of the merged adapter; 0: folded, so both are the same.

    Returns:
        The shape and rank, and the medians of nine runs each, in milliseconds.
    """
    fitting = [s for s in shapes if s[0] * s[1] <= _ENTRIES]
    out, width = max(fitting, key=lambda s: s[0] * s[1]) if fitting else min(shapes, key=lambda s: s[0] * s[1])
    out = max(1, min(out, _ENTRIES // width))
    weight, b, a = np.ones((out, width), np.float32), np.ones((out, rank), np.float32), np.ones((rank, width), np.float32)
    x = np.ones(width, np.float32)
    base, woven = [], []
    for _ in range(_REPEATS):  # in turns, so that a busy moment hits both
        start = time.perf_counter()
        weight @ x
        middle = time.perf_counter()
        if rank:
            weight @ x + b @ (a @ x)
        else:
            weight @ x
        base.append(middle - start)
        woven.append(time.perf_counter() - middle)
    return {"out": out, "in": width, "rank": rank, "tokens": 1, "base_ms": 1e3 * statistics.median(base), "merged_ms": 1e3 * statistics.median(woven)}
