"""Keep each adapter's largest entries, then add."""

from collections.abc import Sequence

from recmerge.merging.dense import added, merge_rows
from recmerge.merging.parts import Dense, LoraFactors
from recmerge.merging.trimming import trimmed


def magnitude_prune(factors: Sequence[LoraFactors], weights: Sequence[float], *, thresholds: Sequence[float], lambda_: float = 1.0) -> Dense:
    """Return lambda sum_i w_i t_i, where t_i holds the largest entries of s_i B_i A_i and zeros.

    Source: the magnitude-based pruning that DARE is compared with (Yu et al. 2024, arXiv 2311.03099, section 4), a rule of
        its own in peft 0.21.2, `add_weighted_adapter(combination_type="magnitude_prune")`.
    Departures: on the exact change (peft prunes A and B apart, which prunes nothing of their product in the same sense);
        over the adapter's whole task vector by default (`trim: per_tensor` is peft's way); entries equal to the
        threshold are all kept; what is left is not rescaled, as there.

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
    return merge_rows(factors, trimmed(thresholds), added(weights, lambda_))
