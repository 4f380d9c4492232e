"""Keep a merged change as its stacked factors: exact, its rank is the sum of the ranks."""

from recmerge.merging.parts import LowRank


def cat(delta: LowRank) -> tuple[LowRank, float]:
    """Return the change as it is, and the energy lost: none.

    Source: peft's `add_weighted_adapter(combination_type="cat")`.
    Departures: the weights and scalings stand in B, so that A is stored as the adapters hold it.

    Args:
        delta: The merged change of one module.

    Returns:
        The same factors, and 0.0.
    """
    return delta, 0.0
