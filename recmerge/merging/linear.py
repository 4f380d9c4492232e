"""peft's `linear` rule, for comparison."""

import math
from collections.abc import Sequence

from recmerge.errors import ArtifactError
from recmerge.merging.parts import LoraFactors, LowRank, require_equal

NEEDS = ("rank",)


def linear(factors: Sequence[LoraFactors], weights: Sequence[float]) -> LowRank:
    """Return (sum_i sqrt(|w_i s_i|) B_i) (sum_i sign(w_i s_i) sqrt(|w_i s_i|) A_i).

    What it gets wrong: besides the wanted w_i s_i B_i A_i it holds every cross term B_i A_j, so it is not the weighted
    sum of the changes. With M adapters of one A and weights 1 / M it is the mean of the products times M: it grows
    with the number of adapters. With a negative weight, the cross terms take the sign of one side only.

    Source: peft 0.21.2, `LoraModel.add_weighted_adapter(combination_type="linear")`.
    Departures: float64 instead of the tensors' own type; the true scaling of rank-stabilised adapters stays 1 in the
        result (peft keeps `use_rslora` of the first adapter with alpha = r, which multiplies the result by sqrt(r)).

    Args:
        factors: M adapters' factors of one module, of equal rank; an adapter without the module (rank 0) is left out.
        weights: M weights.

    Returns:
        B (out, R) and A (R, in).

    Raises:
        ArtifactError: Ranks differ.
    """
    present = [(f, w * f.scaling) for f, w in zip(factors, weights, strict=True) if f.rank]
    if not present:
        raise ArtifactError("'linear' finds the module in no adapter", fix="use --method product")
    require_equal([f for f, _ in present], NEEDS, "linear")
    left = [math.sqrt(abs(ws)) * f.B for f, ws in present]
    right = [math.copysign(math.sqrt(abs(ws)), ws) * f.A for f, ws in present]
    return LowRank(sum(left[1:], left[0]), sum(right[1:], right[0]))
