"""QR of tall matrices in pieces so small that LAPACK starts no threads, which on busy cores cost a hundred times the work."""

import numpy as np

from recmerge.merging.parts import Floats, Matrix
from recmerge.merging.tiles import times

_ROWS, _COLUMNS = 128, 64  # of the pieces that go to LAPACK


def thin_qr(tall: Floats) -> tuple[Matrix, Matrix]:
    """Return the reduced QR of a tall matrix: panels of columns, each in blocks of rows.

    Source: TSQR (Demmel, Grigori, Hoemmen, Langou 2012) within block Gram-Schmidt with reorthogonalisation.

    Args:
        tall: (n, R), of any float type.

    Returns:
        Q (n, min(n, R)) with orthonormal columns, and R with Q @ R = tall, in float64.
    """
    wide = tall.astype(np.float64, copy=False)
    n, width = wide.shape
    return np.linalg.qr(wide) if n <= max(_ROWS, 2 * width) else extend_qr(np.zeros((n, 0)), wide)


def extend_qr(basis: Matrix, tall: Matrix) -> tuple[Matrix, Matrix]:
    """Extend an orthonormal basis by the columns of a tall matrix.

    Args:
        basis: (n, l), orthonormal columns.
        tall: (n, R), with l + R at most n.

    Returns:
        Q (n, l + R), whose first columns are the basis, and R (l + R, R) with Q @ R = tall.
    """
    q, r = basis, np.zeros((basis.shape[1], 0))
    for start in range(0, tall.shape[1], _COLUMNS):
        panel = tall[:, start : start + _COLUMNS]
        inside, own = np.zeros((q.shape[1], panel.shape[1])), np.eye(panel.shape[1])
        for _ in range(2 if q.size else 1):  # once more after scaling: what is left of a column inside the basis is all noise
            within = times(q.T, panel)
            panel, rest = _tsqr(panel - times(q, within))
            inside, own = inside + within @ own, rest @ own
        r = np.block([[r, inside], [np.zeros((len(own), r.shape[1])), own]])
        q = np.concatenate([q, panel], axis=1)
    return q, r


def _tsqr(tall: Matrix) -> tuple[Matrix, Matrix]:
    n, width = tall.shape
    if n <= _ROWS or width == 0:
        return np.linalg.qr(tall)
    n_blocks = -(-n // _ROWS)
    padded = np.zeros((n_blocks * _ROWS, width))
    padded[:n] = tall
    inner_q, inner_r = np.linalg.qr(padded.reshape(n_blocks, _ROWS, width))
    outer_q, outer_r = _tsqr(inner_r.reshape(n_blocks * width, width))
    q = inner_q @ outer_q.reshape(n_blocks, width, width)
    return q.reshape(n_blocks * _ROWS, width)[:n], outer_r
