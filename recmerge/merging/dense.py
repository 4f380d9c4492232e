"""Task vectors as dense matrices, formed a block of rows at a time: what the rules of full rank share."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from recmerge.errors import ArtifactError
from recmerge.merging.parts import Dense, LoraFactors, Matrix
from recmerge.merging.tiles import outer

_ENTRIES = 2**15  # numbers of one task vector that are formed at once: they stay in a core's cache
_LEAST_ROWS = 8  # fewer make slow products
Select = Callable[[int, Matrix], Matrix]
Reduce = Callable[[Sequence[Matrix]], Matrix]


def row_blocks(factors: Sequence[LoraFactors]) -> Iterator[list[Matrix]]:
    """Form scaling * B @ A of one module, block of rows by block of rows.

    The blocks are the same at every call, so that a second pass finds the same numbers to the last bit.

    Args:
        factors: M adapters' factors of one module.

    Yields:
        M matrices (rows, in), float64.
    """
    out, width = factors[0].B.shape[0], factors[0].A.shape[1]
    rows = max(_LEAST_ROWS, _ENTRIES // width)
    left = [f.scaling * f.B for f in factors]
    for start in range(0, out, rows):
        yield [outer(b[start : start + rows], f.A) for b, f in zip(left, factors, strict=True)]


def merge_rows(factors: Sequence[LoraFactors], select: Select, reduce: Reduce) -> Dense:
    """Choose entries of every task vector and make one matrix of them, a block of rows at a time.

    Args:
        factors: M adapters' factors of one module.
        select: An adapter's index and the next rows of its task vector in, the same rows with zeros for what is left out.
        reduce: M blocks of chosen entries in, the merged block out, all float64.

    Returns:
        The merged change, and how many entries of each task vector went in.

    Raises:
        ArtifactError: A merged entry does not fit float32.
    """
    matrix = np.empty((factors[0].B.shape[0], factors[0].A.shape[1]), np.float32)
    kept = [0] * len(factors)
    start = 0
    for blocks in row_blocks(factors):
        chosen = [select(i, block) for i, block in enumerate(blocks)]
        for i, block in enumerate(chosen):
            kept[i] += int(np.count_nonzero(block))
        rows = matrix[start : start + len(chosen[0])]
        with np.errstate(over="ignore"):
            rows[:] = reduce(chosen)
        if not np.isfinite(rows).all():
            raise ArtifactError("the merged change does not fit float32", fix="look for an adapter with huge numbers, or give smaller --weights")
        start += len(rows)
    return Dense(matrix, tuple(kept))


def added(weights: Sequence[float], lambda_: float) -> Reduce:
    """Return what `merge_rows` makes of chosen entries: lambda times their weighted sum."""
    return lambda blocks: weighted_sum(blocks, [lambda_ * w for w in weights])


def weighted_sum(blocks: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
    """Return sum_i w_i X_i of M equal shapes."""
    total = weights[0] * blocks[0]
    for block, weight in zip(blocks[1:], weights[1:], strict=True):
        total += weight * block
    return total
