"""The WeaveRec paper's formula: B and A averaged apart."""

from collections.abc import Sequence

import numpy as np

from recmerge.merging.parts import LoraFactors, LowRank, require_equal

NEEDS = ("rank", "scaling")


def factor(factors: Sequence[LoraFactors], weights: Sequence[float]) -> LowRank:
    """Return s (sum_i w_i B_i) (sum_i w_i A_i), with s the scaling all adapters share.

    The rank stays that of one adapter. The product holds cross terms w_i w_j B_i A_j; they stand for the mean only
    where all A are nearly equal, as after training from one initialisation of A.

    Source: WeaveRec (2025), the paper's formula B_m = sum lambda_i B_i, A_m = sum lambda_i A_i, lambda_i = 1 / (N + 1).
    Departures: none; the published code averages the products instead (`product`).

    Args:
        factors: M adapters' factors of one module, of equal rank and scaling.
        weights: M weights.

    Returns:
        B (out, R), which carries s, and A (R, in).

    Raises:
        ArtifactError: Ranks or scalings differ, or an adapter lacks the module.
    """
    require_equal(factors, NEEDS, "factor")
    left = sum((w * f.B for f, w in zip(factors, weights, strict=True)), np.zeros_like(factors[0].B))
    right = sum((w * f.A for f, w in zip(factors, weights, strict=True)), np.zeros_like(factors[0].A))
    return LowRank(factors[0].scaling * left, right)
