"""TIES-Merging: trim, elect sign, disjoint mean."""

from collections.abc import Sequence

from recmerge.merging.dense import merge_rows
from recmerge.merging.election import elected
from recmerge.merging.parts import Dense, LoraFactors
from recmerge.merging.trimming import trimmed


def ties(factors: Sequence[LoraFactors], weights: Sequence[float], *, thresholds: Sequence[float], lambda_: float = 1.0) -> Dense:
    """Return lambda times the mean of the entries that survive trimming and have the elected sign.

    With tau_i = s_i B_i A_i: trim, t_i = tau_i where |tau_i| is among the largest entries of the adapter's task vector,
    else 0; elect, g = sgn(sum_i w_i t_i); merge, entry by entry, the mean of those w_i t_i whose sign is g.

    Source: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models" (arXiv 2306.01708), section 4
        and algorithm 1; its published recipe without validation data keeps the largest 20 % and takes lambda 1.
    Departures: the task vector is the exact B A of the modules an adapter has, in place of all of a model's parameters;
        the number kept is the whole part of density * n, and entries equal to the threshold are all kept (the published
        code keeps one entry more, peft drops some of the equal ones); weights other than 1.0, which the paper does not
        have, multiply t_i before the election, so that an adapter of weight 0 neither votes nor counts; where the masses
        are equal, the entry is 0 (see `elect_and_average`).

    Args:
        factors: M adapters' factors of one module; an adapter without it has a zero task vector there.
        weights: M weights.
        thresholds: M magnitudes from which on entries are kept, from `trimming`.
        lambda_: Multiplies the result.

    Returns:
        The merged change (out, in), and how many entries of each adapter were left after trimming.

    Raises:
        ArtifactError: An entry does not fit float32.
    """
    return merge_rows(factors, trimmed(thresholds), elected(weights, lambda_))
