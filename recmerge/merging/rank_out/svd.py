"""The best low-rank form of a merged change, without ever forming the dense matrix."""

import numpy as np

from recmerge.merging.parts import Delta, LowRank, Matrix

_BLOCK = 128  # rows: small enough that LAPACK's threads stay out, which on busy cores cost a hundred times the work


def svd(delta: Delta, rank: int) -> tuple[LowRank, float]:
    """Return the closest matrix of rank `rank` in Frobenius norm, and the share of energy it loses.

    QR of both stacked factors leaves an (R, R) core whose singular values are those of B @ A.

    Source: Eckart and Young (1936) for the optimum; the QR route is the usual one for products of thin matrices.
    Departures: sqrt(S) goes to both sides, so that B and A are of one size and lose least in a low-precision file; signs
        are fixed (the largest entry of each column of B is positive), so equal input gives equal bytes.

    Args:
        delta: The merged change of one module, rank R.
        rank: The rank wanted, at least 1; a change of lower rank keeps its own.

    Returns:
        Factors of rank min(rank, R, out, in), and sum of dropped S^2 over sum of S^2, in [0, 1].
    """
    q_left, r_left = thin_qr(delta.B)
    q_right, r_right = thin_qr(delta.A.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    kept = min(rank, s.size)
    energy = float(np.sum(s**2))
    lost = float(np.sum(s[kept:] ** 2)) / energy if energy > 0 else 0.0
    root = np.sqrt(s[:kept])
    left = (q_left @ u[:, :kept]) * root
    right = (vt[:kept] @ q_right.T) * root[:, None]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(kept)]) if left.size else np.ones(kept)
    signs[signs == 0] = 1.0
    return LowRank(left * signs, right * signs[:, None]), lost


def thin_qr(tall: Matrix) -> tuple[Matrix, Matrix]:
    """Return the reduced QR of a tall matrix, block of rows by block of rows.

    Source: TSQR (Demmel, Grigori, Hoemmen, Langou 2012).

    Args:
        tall: (n, R), float64.

    Returns:
        Q (n, min(n, R)) with orthonormal columns, and R with Q @ R = tall.
    """
    n, width = tall.shape
    block = max(_BLOCK, 2 * width)
    if n <= block or width == 0:
        return np.linalg.qr(tall)
    n_blocks = -(-n // block)
    padded = np.zeros((n_blocks * block, width))
    padded[:n] = tall
    inner_q, inner_r = np.linalg.qr(padded.reshape(n_blocks, block, width))
    outer_q, outer_r = thin_qr(inner_r.reshape(n_blocks * width, width))
    q = inner_q @ outer_q.reshape(n_blocks, width, width)
    return q.reshape(n_blocks * block, width)[:n], outer_r
