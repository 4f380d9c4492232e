"""The weighted sum of the adapters' changes: what merging adapters ought to mean."""

from collections.abc import Sequence

from recmerge.merging.parts import LoraFactors, Stacked


def product(factors: Sequence[LoraFactors], weights: Sequence[float]) -> Stacked:
    """Return sum_i w_i s_i B_i A_i, exactly, as stacked factors.

    The result's rank is the sum of the ranks; ranks, scalings and modules may differ, weights may be negative.

    Source: WeaveRec (2025), published code, `src/mlora3`: per module `W += w_i * (alpha / r) * (B_i @ A_i)`.
    Departures: each adapter's own scaling (the code takes the first adapter's for all); the sum is formed once in
        float64 (the code adds one adapter after another to a bfloat16 weight); the weights are used as given (the code
        passes them through a softmax, which leaves equal ones equal).

    Args:
        factors: M adapters' factors of one module.
        weights: M weights.

    Returns:
        B (out, sum of R), which carries the weights and scalings, and A (sum of R, in) as the adapters hold it.
    """
    return Stacked(factors, weights)
