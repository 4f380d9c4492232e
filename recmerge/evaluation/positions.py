"""Does a candidate's place in the list that a model was shown decide whether it is chosen?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.evaluation.metrics import expected_metric
from recmerge.evaluation.ranks import Ranks
from recmerge.evaluation.significance import figures
from recmerge.names import IS_TARGET, RANK, SCORE, USER_ID

N_PARTS = 5  # a list is cut into fifths
_PLACE, _SIZE, _CHOSEN, _PART = "place", "size", "chosen", "part"


@dataclass(frozen=True)
class Positions:
    """Where first choices and targets stood in the lists of U users.

    Args:
        chosen: (U,) the first choice's place, 0: the first of its list, 1: the last; where several share it their mean; NaN where nothing was ranked.
        shares: (U, 5) the share of the first choice in each fifth of the list; 0 where nothing was ranked.
        target_part: (U,) the fifth in which the target stood, from 0.
    """

    chosen: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    target_part: npt.NDArray[np.int64]


def listed_positions(rankings: pl.DataFrame, mode: str = "score") -> Positions:
    """Find where each user's first choice and target stood in its list.

    Args:
        rankings: user_id, score, rank, is_target; a user's rows in the order in which the candidates were listed.
        mode: "score": the first choice has the highest score. "generate": the lowest `rank`, the first candidate that the model named.

    Returns:
        One entry per user, by user_id.
    """
    value = pl.col(SCORE) if mode == "score" else -pl.col(RANK).cast(pl.Float64)
    listed = rankings.select(
        pl.col(USER_ID).cast(pl.String),
        IS_TARGET,
        pl.int_range(pl.len()).over(USER_ID).alias(_PLACE),
        pl.len().cast(pl.Int64).over(USER_ID).alias(_SIZE),
        (value == value.max().over(USER_ID)).fill_null(False).alias(_CHOSEN),
    ).with_columns((pl.col(_PLACE) * N_PARTS // pl.col(_SIZE)).alias(_PART))
    parts = [(pl.col(_PART).filter(pl.col(_CHOSEN)) == part).mean().fill_null(0.0).alias(str(part)) for part in range(N_PARTS)]
    found = (
        listed.group_by(USER_ID)
        .agg(
            (pl.col(_PLACE).filter(pl.col(_CHOSEN)).mean() / (pl.col(_SIZE).first() - 1)).alias(_PLACE),
            pl.col(_PART).filter(pl.col(IS_TARGET)).first(),
            *parts,
        )
        .sort(USER_ID)
    )
    return Positions(found[_PLACE].fill_null(np.nan).to_numpy(), found.select(str(p) for p in range(N_PARTS)).to_numpy(), found[_PART].to_numpy())


def position_bias(positions: Positions, ranks: Ranks, n_samples: int = 2000, seed: int = 42) -> dict[str, Any] | None:
    """Say how far the order of a list decides.

    Stored lists are shuffled, so the first choices of a ranker that is blind to their order stand at .5 on average and, but for chance, equally often
    in each fifth; and it is right equally often wherever the target stands.

    Args:
        positions: Of U users.
        ranks: Of the same users in the same order.
        n_samples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        first_choice (mean place, 0 to 1: `value`, `ci95`) and parts (for each fifth of the list: chosen, the share of first choices that stood there;
        n_users, whose target did; ndcg@1 of those, null where there are none); None where nothing was ranked, or every list holds one candidate.
    """
    known = np.isfinite(positions.chosen)
    if not known.any():
        return None
    right = expected_metric("ndcg@1", ranks.n_better, ranks.n_tied)
    parts = []
    for part, share in enumerate(positions.shares[known].mean(0)):
        there = known & (positions.target_part == part)
        parts.append({"chosen": float(share), "n_users": int(there.sum()), "ndcg@1": float(right[there].mean()) if there.any() else None})
    return {**figures(positions.chosen[known][:, None], ["first_choice"], n_samples, seed), "parts": parts}
