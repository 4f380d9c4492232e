"""What becomes of a merged change: stacked factors, the best rank R, or part of the base model."""

import re
from dataclasses import dataclass

from recmerge.errors import UsageError

_SVD = re.compile(r"svd:([1-9][0-9]*)")
CAT, SVD, FOLD = "cat", "svd", "fold"


@dataclass(frozen=True)
class RankOut:
    """A parsed `--rank-out`.

    Args:
        kind: "cat", "svd" or "fold".
        rank: The rank of "svd"; None otherwise.
    """

    kind: str
    rank: int | None = None


def parse_rank_out(text: str) -> RankOut:
    """Parse "cat", "svd:R" or "fold".

    Args:
        text: As given.

    Returns:
        The kind, and the rank of "svd".

    Raises:
        UsageError: It is none of them.
    """
    match = _SVD.fullmatch(text)
    if match:
        return RankOut(SVD, int(match[1]))
    if text not in (CAT, FOLD):
        raise UsageError(f"rank-out '{text}' is unknown, allowed: cat, svd:R with R at least 1, fold", fix="choose one of them")
    return RankOut(text)
