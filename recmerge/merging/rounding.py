"""A module's factors as the file will hold them, compared with what was meant while both are at hand."""

import math
from dataclasses import dataclass

import numpy as np

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_write import AdapterLayout, StoredFactors
from recmerge.lm.tensor_file import unit_roundoff, widen
from recmerge.merging.parts import Grams, LowRank, Matrix, distance
from recmerge.merging.tiles import gram

_ENTRIES = 2**18  # of B that are formed at once: they stay in a core's cache
_SLACK = 1 + 2**-10  # bfloat16 is rounded by way of float32, and norms are rounded too


@dataclass(frozen=True)
class Rounded:
    """One module's factors, rounded once.

    Args:
        stored: B (out, rank) and A (rank, in) in the file's dtype, padded with zeros.
        grams: The inner products of the factors before rounding.
        distance: The Frobenius norm of the change that plain peft adds, minus what was meant.
    """

    stored: StoredFactors
    grams: Grams
    distance: float


def round_factors(layout: AdapterLayout, module: str, meant: LowRank) -> Rounded:
    """Round a merged module for the file.

    Args:
        layout: What the file holds.
        module: The module's name.
        meant: Its merged change.

    Returns:
        The rounded factors, and how far they are off.

    Raises:
        ArtifactError: A number does not fit the file's dtype, the sizes are not the layout's, or a column of B or row of A is
            farther off than one rounding of each number explains.
    """
    r, exact_rows = meant.rank, meant.A
    (out, width), dtype = layout.shapes[module], layout.dtype
    if (meant.height, exact_rows.shape[1]) != (out, width) or r > layout.rank:
        raise ArtifactError(f"module {module} has rank {r} and size {meant.height} x {exact_rows.shape[1]}, meant: rank {layout.rank}, {out} x {width}")
    b = np.zeros((out, layout.rank), layout.stored_type) if r < layout.rank else np.empty((out, r), layout.stored_type)
    left, off_left = np.zeros((r, r)), np.zeros((r, r))
    step = max(1, _ENTRIES // max(r, 1))
    for start in range(0, out, step):
        block = meant.rows(start, start + step)
        stored = b[start : start + step, :r]
        with np.errstate(over="ignore"):
            stored[:] = block if dtype == "F32" else layout.round(module, block)  # a copy fewer
        found = widen(stored, dtype)
        off = found - block
        left += gram(found if dtype == "F32" else block, quick=True)  # `gram` itself is no closer than float32
        off_left += gram(off, quick=True) if off.any() else 0.0
    a = layout.round(module, exact_rows)
    grams = Grams(left, gram(exact_rows.T, quick=True))
    off_right = np.zeros((r, r))
    if a is not exact_rows:
        off_a = widen(a, dtype) - exact_rows
        off_right += gram(off_a.T, quick=True) if off_a.any() else 0.0
    if not (_within_rounding(off_left, grams.left, out, dtype) and _within_rounding(off_right, grams.right, width, dtype)):
        raise ArtifactError(f"the merged adapter's module {module} is not what was meant", fix="report it: recmerge rounded wrongly")
    if off_right.any():
        apart = distance(LowRank(widen(b[:, :r], dtype).astype(np.float64), widen(a, dtype).astype(np.float64)), meant)
    else:
        apart = math.sqrt(max(float(np.sum(off_left * grams.right)), 0.0))
    padded = np.concatenate([a, np.zeros((layout.rank - r, width), a.dtype)]) if r < layout.rank else a
    return Rounded((b, padded), grams, apart)


def _within_rounding(off: Matrix, side: Matrix, n: int, dtype: str) -> bool:
    """Tell whether columns of n numbers are off by no more than one rounding of each, from the sums of squares on the diagonals."""
    relative, least = unit_roundoff(dtype)
    allowed = (relative * np.sqrt(np.diag(side)) + least * math.sqrt(n)) * _SLACK
    return bool((np.sqrt(np.diag(off)) <= allowed).all())
