"""Elect a sign per entry, then average the entries that have it: the second half of TIES."""

from collections.abc import Sequence

import numpy as np

from recmerge.merging.dense import Reduce
from recmerge.merging.parts import Matrix


def elected(weights: Sequence[float], lambda_: float) -> Reduce:
    """Return what `merge_rows` makes of chosen entries: lambda times their elected mean, weights multiplied in before the election."""
    return lambda blocks: lambda_ * elect_and_average([w * b for b, w in zip(blocks, weights, strict=True)])


def elect_and_average(blocks: Sequence[Matrix]) -> Matrix:
    """Return, entry by entry, the mean of those numbers whose sign has the larger total mass.

    Zeros have no sign: they are not counted in the mean. Where positive and negative mass are equal, the result is 0.

    Source: TIES-Merging (Yadav et al. 2023, arXiv 2306.01708), section 4 and algorithm 1, steps 2 and 3.
    Departures: none. (Where the masses are equal, sgn(0) = 0 agrees with no entry; the published code gives such entries
        the sign that most of the vector has, peft a plus.)

    Args:
        blocks: M matrices of one shape.

    Returns:
        A matrix of that shape.
    """
    mass = blocks[0].copy()
    for block in blocks[1:]:
        mass += block
    plus, minus = mass > 0, mass < 0
    total, count = np.zeros_like(mass), np.zeros(mass.shape, np.int16)
    for block in blocks:
        agrees = (block > 0) & plus
        agrees |= (block < 0) & minus
        total += block * agrees
        count += agrees
    return total / np.maximum(count, 1)
