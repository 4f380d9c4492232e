"""The best low-rank form of a merged change."""

import numpy as np

from recmerge.merging.parts import Delta, Dense, LowRank
from recmerge.merging.rank_out.krylov import dominant
from recmerge.merging.rank_out.thin_qr import thin_qr
from recmerge.merging.tiles import times


def svd(delta: Delta, rank: int) -> tuple[LowRank, float]:
    """Return the closest matrix of rank `rank` in Frobenius norm, and the share of energy it loses.

    Of stacked factors: QR of both leaves an (R, R) core whose singular values are those of B @ A, so that the dense matrix
    is never formed. Of a dense matrix: the same within a space that holds its largest directions (`dominant`). The energy
    lost is that of what is returned, to rounding; where the space was not the whole one, the optimum loses less, by some
    1e-6 of the energy.

    Source: Eckart and Young (1936) for the optimum; the QR route is the usual one for products of thin matrices.
    Departures: sqrt(S) goes to both sides, so that B and A are of one size and lose least in a low-precision file; signs
        are fixed (the largest entry of each column of B is positive), so equal input gives equal bytes.

    Args:
        delta: The merged change of one module, of rank R or dense.
        rank: The rank wanted, at least 1; a change of lower rank keeps its own.

    Returns:
        Factors of rank min(rank, R, out, in), and sum of dropped S^2 over sum of S^2, in [0, 1].
    """
    thin = dominant(delta, rank) if isinstance(delta, Dense) else delta
    q_left, r_left = thin_qr(thin.B)
    q_right, r_right = thin_qr(thin.A.T)
    u, s, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    kept = min(rank, s.size)
    outside = max(delta.energy() - float(np.sum(s**2)), 0.0) if isinstance(delta, Dense) else 0.0
    dropped = float(np.sum(s[kept:] ** 2)) + outside
    energy = float(np.sum(s[:kept] ** 2)) + dropped
    lost = dropped / energy if energy > 0 else 0.0
    root = np.sqrt(s[:kept])
    left = times(q_left, u[:, :kept]) * root
    right = times(q_right, vt[:kept].T).T * root[:, None]
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(kept)]) if left.size else np.ones(kept)
    signs[signs == 0] = 1.0
    return LowRank(left * signs, right * signs[:, None]), lost
