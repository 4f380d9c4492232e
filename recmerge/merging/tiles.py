"""Matrix products in tiles so small that BLAS starts no threads, which on busy cores cost a hundred times the work."""

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORK = 2**18  # multiplications from which on OpenBLAS starts threads

Matrix = NDArray[np.float64]


def times(matrix: NDArray[np.floating[Any]], thin: Matrix) -> Matrix:
    """Return matrix @ thin in float64; only a tile of the matrix is widened at a time.

    Args:
        matrix: (n, m), of any float type and memory order.
        thin: (m, b), with b small.

    Returns:
        (n, b).
    """
    side = max(8, isqrt(_WORK // max(thin.shape[1], 1)))
    out = np.zeros((matrix.shape[0], thin.shape[1]))
    for i in range(0, matrix.shape[0], side):
        for j in range(0, matrix.shape[1], side):
            out[i : i + side] += matrix[i : i + side, j : j + side].astype(np.float64, copy=False) @ thin[j : j + side]
    return out


def outer(left: Matrix, right: Matrix) -> Matrix:
    """Return left @ right, where the rank is small and the rows are few.

    Args:
        left: (rows, R).
        right: (R, m).

    Returns:
        (rows, m).
    """
    side = max(8, _WORK // max(left.size, 1))
    out = np.empty((left.shape[0], right.shape[1]))
    for j in range(0, right.shape[1], side):
        out[:, j : j + side] = left @ right[:, j : j + side]
    return out
