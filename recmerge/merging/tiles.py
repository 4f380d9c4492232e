"""Matrix products in tiles so small that BLAS starts no threads, which on busy cores cost a hundred times the work."""

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORK = 2**18  # multiplications from which on OpenBLAS starts threads
_OWN_WORK = 400_000  # b (b + 1) n of (n, b) by its own transpose, half the work of other products: threads start at 440,000
_GROUP = 16  # blocks that one call multiplies: their products stay in a core's cache
_LEAST_SQUARE = 1e-24  # a sum of squares so small may have lost some of them to float32's range

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


def gram(tall: NDArray[np.floating[Any]], quick: bool = False) -> Matrix:
    """Return tall' @ tall in float64, from blocks of rows.

    Args:
        tall: (n, b), of any float type and memory order, with b small.
        quick: Multiply within blocks of some hundred rows in float32, to about 1e-7 of |x| |y|, unless squares leave its range.

    Returns:
        (b, b).
    """
    if quick:
        with np.errstate(over="ignore", invalid="ignore"):
            found = _gram(tall, np.dtype(np.float32))
        if np.isfinite(found).all() and (np.diag(found) > _LEAST_SQUARE).all():
            return found
    return _gram(tall, np.dtype(np.float64))


def _gram(tall: NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Matrix:
    n, width = tall.shape
    side = max(8, _OWN_WORK // max(width * (width + 1), 1))
    whole = n // side * side
    wide = tall.T.flags.c_contiguous  # then its long axis is cut the other way: a copy would cost as much as the products
    blocks = tall.T[:, :whole].reshape(width, n // side, side).transpose(1, 2, 0) if wide else tall[:whole].reshape(n // side, side, width)
    rest = tall[whole:].astype(np.float64, copy=False)
    out: Matrix = rest.T @ rest
    for i in range(0, len(blocks), _GROUP):
        block = blocks[i : i + _GROUP].astype(dtype, copy=False)
        out += np.matmul(block.transpose(0, 2, 1), block).sum(axis=0, dtype=np.float64)
    return out


def outer(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> Matrix:
    """Return left @ right in float64, where the rank is small and the rows are few.

    Args:
        left: (rows, R), of any float type.
        right: (R, m), of any float type.

    Returns:
        (rows, m).
    """
    side = max(8, _WORK // max(left.size, 1))
    left = left.astype(np.float64, copy=False)
    out = np.empty((left.shape[0], right.shape[1]))
    for j in range(0, right.shape[1], side):
        out[:, j : j + side] = left @ right[:, j : j + side]
    return out
