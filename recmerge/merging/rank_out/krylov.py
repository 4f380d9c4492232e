"""The largest singular directions of a large dense matrix, found by products alone."""

import numpy as np
from numpy.typing import NDArray

from recmerge.merging.parts import Dense, LowRank, Matrix
from recmerge.merging.rank_out.thin_qr import extend_qr
from recmerge.merging.tiles import times

_EXACT = 256  # up to this smaller side the whole matrix is decomposed
_MORE = 8  # columns beside the wanted rank: they speed convergence
_MAX_STEPS = 24
_GAIN = 1e-6  # of the energy: when a step finds no more than this, the rest is noise


def dominant(delta: Dense, rank: int) -> LowRank:
    """Return factors whose leading `rank` singular directions are those of a dense matrix.

    Small matrices, and ranks that are a large part of the smaller side, come back whole. For others a block Krylov space
    grows until one more step would raise the energy found in the best `rank` directions by less than 1e-6 of all. The
    products run over float32 tiles in float64, and the start is fixed, so equal input gives equal bytes.

    Source: Musco and Musco 2015 (arXiv 1504.05477), algorithm 2, block Krylov iteration; Golub and Kahan 1965.
    Departures: full reorthogonalisation twice per step, a fixed start of signs, growth until converged.

    Args:
        delta: (out, in).
        rank: The rank wanted.

    Returns:
        Q with `rank` orthonormal columns and Q' D, or D Q and Q' (all of D where it is small): D minus their product has the
        energy of D minus the product's, exactly.
    """
    matrix = delta.matrix
    out, width = matrix.shape
    if min(out, width) <= _EXACT or 4 * (rank + _MORE) > min(out, width):
        whole = matrix.astype(np.float64)
        return LowRank(whole, np.eye(width)) if out >= width else LowRank(np.eye(out), whole)
    if out > width:
        basis, rows = _grow(matrix.T, rank, delta.energy())
        return LowRank(rows.T, basis.T)
    basis, rows = _grow(matrix, rank, delta.energy())
    return LowRank(basis, rows)


def _grow(matrix: NDArray[np.float32], rank: int, energy: float) -> tuple[Matrix, Matrix]:
    """Return Q (n, rank) and Q' D (rank, m) of a matrix D (n, m)."""
    n, m = matrix.shape
    block = rank + _MORE
    bits = np.random.Philox(key=0).random_raw(m * block).reshape(m, block)
    basis, rows = np.zeros((n, 0)), np.zeros((0, m))
    start, found = np.where(bits >> np.uint64(63), 1.0, -1.0), 0.0
    for _ in range(_MAX_STEPS):
        basis, _ = extend_qr(basis, times(matrix, start))
        start = times(matrix.T, basis[:, -block:])
        rows = np.concatenate([rows, start.T])
        values, vectors = np.linalg.eigh(times(rows, rows.T))
        last, found = found, float(values[-rank:].sum())
        if found - last <= _GAIN * energy or basis.shape[1] + block > n:
            break
    best = vectors[:, -rank:]
    return times(basis, best), times(rows.T, best).T
