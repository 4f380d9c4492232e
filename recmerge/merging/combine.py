"""One module from start to end: the rule, then its rank."""

from collections.abc import Sequence

from recmerge.errors import ArtifactError
from recmerge.merging.parts import LoraFactors, LowRank, Method
from recmerge.merging.rank_out import SVD, RankOut
from recmerge.merging.rank_out.cat import cat
from recmerge.merging.rank_out.svd import svd


def combine(module: str, factors: Sequence[LoraFactors], weights: Sequence[float], method: Method, rank_out: RankOut) -> tuple[LowRank, float]:
    """Merge one module of every adapter.

    Args:
        module: Its name, for errors.
        factors: M adapters' factors.
        weights: M weights.
        method: The rule.
        rank_out: What to do with the result's rank.

    Returns:
        The merged change, and the share of its squared norm that was dropped, in [0, 1].

    Raises:
        ArtifactError: The rule refuses the factors.
    """
    try:
        delta = method(factors, weights)
    except ArtifactError as error:
        raise ArtifactError(f"module {module}: {error.what}", fix=error.fix) from error
    return svd(delta, rank_out.rank) if rank_out.kind == SVD and rank_out.rank else cat(delta)
