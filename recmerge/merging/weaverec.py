"""WeaveRec's merge of a target adapter and its hybrids."""

from collections.abc import Sequence

from recmerge.merging.parts import LoraFactors, Stacked
from recmerge.merging.product import product


def weaverec(factors: Sequence[LoraFactors], weights: Sequence[float]) -> Stacked:
    """Return the mean of the adapters' changes: `product` with every weight 1 / (N + 1).

    Source: WeaveRec (2025): the target's adapter and N hybrids, lambda_i = 1 / (N + 1); the rule is that of its
        published code (`product`). The paper's own formula averages B and A apart: that is `factor`.
    Departures: those of `product`. Weights that are given are used as given, so unequal ones make this `product`.

    Args:
        factors: The target's adapter and N hybrids, one module of each.
        weights: N + 1 weights; equal ones by default.

    Returns:
        See `product`.
    """
    return product(factors, weights)
