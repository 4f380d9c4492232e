"""Where adapters pull a weight in opposite directions: sign conflict between their task vectors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmerge.merging.parts import LoraFactors, Matrix
from recmerge.merging.tiles import outer

_ALL = 2**17  # entries of a module up to which every one is looked at
_SIDE = 96  # of the grid of rows and columns that is looked at in a larger module
_BLOCK = 2**15  # entries of one task vector that are formed at once


@dataclass(frozen=True)
class SignConflict:
    """How often, and how heavily, the entries of two task vectors have opposite signs.

    Args:
        plain: (M, M), the share of the entries that are zero in neither; NaN where there are none.
        weighted: (M, M), the same with each entry counted by the product of its two magnitudes: (1 - cosine') / 2, where cosine'
            is the cosine with magnitudes in its denominator.
        n_entries: How many entries were looked at.
    """

    plain: Matrix
    weighted: Matrix
    n_entries: int


def sign_conflict(factors: Sequence[LoraFactors]) -> SignConflict:
    """Compare the signs of every two task vectors, entry by entry.

    In modules of more than 2^17 entries, those on a grid of 96 evenly spaced rows and columns: the same ones in every run.

    Args:
        factors: M adapters' factors of one module; an adapter without it has rank 0.

    Returns:
        The shares, symmetric.
    """
    out, width = factors[0].B.shape[0], factors[0].A.shape[1]
    sampled = out * width > _ALL
    rows, columns = _spread(out, sampled), _spread(width, sampled)
    right = [f.A[:, columns].astype(np.float64) for f in factors]
    m = len(factors)
    signs, both, sums, mass = (np.zeros((m, m)) for _ in range(4))
    step = max(1, _BLOCK // max(len(columns), 1))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        vectors = np.stack([outer(f.scaling * f.B[block].astype(np.float64), a).ravel() for f, a in zip(factors, right, strict=True)])
        sizes, sides = np.abs(vectors), np.sign(vectors)
        for total, of in ((signs, sides), (both, np.abs(sides)), (sums, vectors), (mass, sizes)):
            total += of @ of.T
    opposed = (both - signs) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        plain, weighted = opposed / both, np.clip((1 - sums / mass) / 2, 0, 1)
    return SignConflict(_symmetric(plain), _symmetric(weighted), len(rows) * len(columns))


def _symmetric(lower: Matrix) -> Matrix:
    """Return a matrix from its entries below the diagonal; a task vector has no conflict with itself."""
    below = np.tril(lower, -1)
    return np.asarray(np.where(np.tri(len(lower), k=-1, dtype=bool), below, below.T) * (1 - np.eye(len(lower))))


def _spread(n: int, sampled: bool) -> NDArray[np.intp]:
    """Return all of n places, or 96 of them evenly spaced."""
    return np.linspace(0, n - 1, _SIDE).round().astype(np.intp) if sampled and n > _SIDE else np.arange(n)
