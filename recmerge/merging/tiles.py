"""Matrix products in tiles that stay in a core's cache, so that only a tile is ever widened to float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIDE = 256  # of a tile of a large matrix
_ROWS = 1024  # of a tall matrix that are multiplied at once
_QUICK_ROWS = 256  # likewise in float32: a kernel may add them one after another, and more of them would cost a digit
_ENTRIES = 2**18  # of an outer product that are formed at once
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
    out = np.zeros((matrix.shape[0], thin.shape[1]))
    for i in range(0, matrix.shape[0], _SIDE):
        for j in range(0, matrix.shape[1], _SIDE):
            out[i : i + _SIDE] += matrix[i : i + _SIDE, j : j + _SIDE].astype(np.float64, copy=False) @ thin[j : j + _SIDE]
    return out


def gram(tall: NDArray[np.floating[Any]], quick: bool = False) -> Matrix:
    """Return tall' @ tall in float64, from blocks of rows.

    Args:
        tall: (n, b), of any float type and memory order, with b small.
        quick: Multiply blocks of some rows in float32, to about 1e-7 of |x| |y|, unless there are no more than a thousand or squares leave its range.

    Returns:
        (b, b).
    """
    if quick and len(tall) > _ROWS:
        with np.errstate(over="ignore", invalid="ignore"):
            found = _gram(tall, np.dtype(np.float32), _QUICK_ROWS)
        if np.isfinite(found).all() and (np.diag(found) > _LEAST_SQUARE).all():
            return found
    return _gram(tall, np.dtype(np.float64), _ROWS)


def _gram(tall: NDArray[np.floating[Any]], dtype: np.dtype[Any], rows: int) -> Matrix:
    out: Matrix = np.zeros((tall.shape[1], tall.shape[1]))
    for i in range(0, tall.shape[0], rows):
        block = tall[i : i + rows].astype(dtype, copy=False)
        out += block.T @ block
    return out


def outer(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> Matrix:
    """Return left @ right in float64, where the rank is small and the rows are few.

    Args:
        left: (rows, R), of any float type.
        right: (R, m), of any float type.

    Returns:
        (rows, m).
    """
    side = max(8, _ENTRIES // max(left.shape[0], 1))
    left = left.astype(np.float64, copy=False)
    out = np.empty((left.shape[0], right.shape[1]))
    for j in range(0, right.shape[1], side):
        out[:, j : j + side] = left @ right[:, j : j + side]
    return out
