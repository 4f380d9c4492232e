"""Task arithmetic: add task vectors, or take one away."""

from collections.abc import Sequence

from recmerge.merging.parts import LoraFactors, Stacked
from recmerge.merging.product import product


def task_arithmetic(factors: Sequence[LoraFactors], weights: Sequence[float], *, lambda_: float = 1.0) -> Stacked:
    """Return lambda sum_i w_i s_i B_i A_i, exactly, as stacked factors; a negative weight takes a domain out.

    It is `product` with weights of 1.0 where none are given, so the result grows with the number of adapters.

    Source: Ilharco et al. 2023, "Editing Models with Task Arithmetic" (arXiv 2212.04089), section 2: addition
        theta_0 + lambda sum_i tau_i, negation theta_0 - lambda tau.
    Departures: one weight per task vector besides the common lambda; lambda is 1.0 by default (the paper chooses it on
        validation data).

    Args:
        factors: M adapters' factors of one module.
        weights: M weights.
        lambda_: Multiplies the sum.

    Returns:
        See `product`.
    """
    return product(factors, [lambda_ * w for w in weights])
