"""DARE before TIES: drop entries at random, rescale the others, elect sign, disjoint mean."""

from collections.abc import Sequence

from recmerge.merging.dense import merge_rows
from recmerge.merging.dropping import dropped
from recmerge.merging.election import elected
from recmerge.merging.parts import Dense, LoraFactors


def dare_ties(factors: Sequence[LoraFactors], weights: Sequence[float], *, density: float, keys: Sequence[int], lambda_: float = 1.0) -> Dense:
    """Return lambda times the mean of the kept and rescaled entries that have the elected sign.

    `ties` with random dropping in place of trimming: d_i = m_i * s_i B_i A_i / density; g = sgn(sum_i w_i d_i); the mean,
    entry by entry, of those w_i d_i whose sign is g.

    Source: Yu et al. 2024 (arXiv 2311.03099), section 3, DARE with TIES-Merging (Yadav et al. 2023, arXiv 2306.01708).
    Departures: random dropping takes the place of TIES' trimming, as in peft and mergekit (the published code, MergeLM,
        trims what was kept once more); else those of `dare_linear` and `ties`.

    Args:
        factors: M adapters' factors of one module; an adapter without it has a zero task vector there.
        weights: M weights.
        density: The fraction kept, in (0, 1].
        keys: M keys of the draws, from `draw_key`.
        lambda_: Multiplies the result.

    Returns:
        The merged change (out, in), and how many entries of each adapter were kept.

    Raises:
        ArtifactError: An entry does not fit float32.
    """
    return merge_rows(factors, dropped(density, keys), elected(weights, lambda_))
