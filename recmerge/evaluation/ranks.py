"""Where each user's target stands among its candidates, ties and misses included."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.errors import DataError
from recmerge.names import IS_TARGET, ITEM_ID, N_BETTER, N_CANDIDATES, N_TIED, RANK, SCORE, TARGET, USER_ID

MODES = ("score", "generate")
_ITEMS = "items"
_RANK_AGAIN = "rank again with `recmerge infer`"


@dataclass(frozen=True)
class Ranks:
    """Where the targets of U users stand.

    A tie has no order, so a target is described by two counts instead of one rank; a target that was not
    ranked at all is a miss: infinitely many are better.

    Args:
        user_id: (U,) text, ascending.
        n_candidates: (U,) candidates of the user, the target among them.
        n_better: (U,) candidates ranked strictly above the target; inf for a miss.
        n_tied: (U,) other candidates with exactly the target's score.
    """

    user_id: npt.NDArray[np.str_]
    n_candidates: npt.NDArray[np.int64]
    n_better: npt.NDArray[np.float64]
    n_tied: npt.NDArray[np.int64]

    @property
    def target_rank(self) -> npt.NDArray[np.float64]:
        """(U,) expected 1-based rank over all orders of the ties; inf for a miss."""
        return self.n_better + 1 + self.n_tied / 2

    @property
    def ranked(self) -> npt.NDArray[np.bool_]:
        """(U,) whether the target was ranked at all."""
        return np.isfinite(self.n_better)

    def __len__(self) -> int:
        return len(self.user_id)


def target_ranks(rankings: pl.DataFrame, mode: str = "score", *, repeats: bool = False) -> Ranks:
    """Find each user's target among its candidates.

    Args:
        rankings: One row per user and candidate, in any order: user_id, item_id, score (null where the candidate was
            not ranked), rank, is_target.
        mode: "score": places come from the scores (higher is better). "generate": from `rank`, the place in the
            model's own output, where outputs off the list take places too.
        repeats: Accept that a user's list names one item twice (published candidates may) and count it once.

    Returns:
        One entry per user, by user_id.

    Raises:
        DataError: A column is missing, a score is NaN, a pair stands twice, or a user has not exactly one target.
        ValueError: `mode` is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode '{mode}' is none of {', '.join(MODES)}")
    frame = _checked(rankings, repeats)
    target = frame.filter(pl.col(IS_TARGET)).select(USER_ID, pl.col(SCORE).alias("target_score"), pl.col(RANK).alias("target_place"))
    # A comparison with null is null and counts as 0: unranked candidates beat nobody.
    counts = (
        frame.join(target, on=USER_ID)
        .group_by(USER_ID)
        .agg(
            pl.len().alias("n_candidates"),
            (pl.col(SCORE) > pl.col("target_score")).sum().alias("n_better"),
            (pl.col(SCORE) == pl.col("target_score")).sum().alias("n_equal"),
            pl.col("target_score").is_not_null().first().alias("ranked"),
            pl.col("target_place").first(),
        )
        .sort(USER_ID)
    )
    ranked = counts["ranked"].to_numpy()
    if mode == "generate":
        _check_places(counts)
        better = counts["target_place"].cast(pl.Float64).fill_null(np.inf).to_numpy() - 1
        tied = np.zeros(len(counts), dtype=np.int64)
    else:
        better = counts["n_better"].cast(pl.Float64).to_numpy()
        tied = np.maximum(counts["n_equal"].cast(pl.Int64).to_numpy() - 1, 0)
    return Ranks(
        user_id=np.asarray(counts[USER_ID].to_list(), dtype=np.str_),
        n_candidates=counts["n_candidates"].cast(pl.Int64).to_numpy(),
        n_better=np.where(ranked, better, np.inf),
        n_tied=tied,
    )


def counted_ranks(targets: pl.DataFrame) -> Ranks:
    """Take the targets' places from counts, where the candidates are too many to be listed.

    Args:
        targets: One row per user, in any order: user_id, n_candidates (the target among them), n_better, n_tied (others with its score).

    Returns:
        One entry per user, by user_id.

    Raises:
        DataError: A column is missing, there is no row, a user stands twice, or counts do not fit together.
    """
    missing = ", ".join(c for c in (USER_ID, N_CANDIDATES, N_BETTER, N_TIED) if c not in targets.columns)
    if missing or targets.is_empty():
        raise DataError(f"the targets' places have no {f'column {missing}' if missing else 'row'}", fix=_RANK_AGAIN)
    frame = targets.select(pl.col(USER_ID).cast(pl.String), pl.col(N_CANDIDATES, N_BETTER, N_TIED).cast(pl.Int64)).sort(USER_ID)
    fits = (pl.col(N_BETTER) >= 0) & (pl.col(N_TIED) >= 0) & (pl.col(N_BETTER) + pl.col(N_TIED) < pl.col(N_CANDIDATES))
    wrong = frame.filter(~fits.fill_null(False) | pl.col(USER_ID).is_duplicated())
    if len(wrong):
        raise DataError(
            f"{len(wrong)} rows of targets are of one user or do not fit together, the first is of '{wrong[0, USER_ID]}': {wrong[0, N_BETTER]} better and "
            f"{wrong[0, N_TIED]} tied of {wrong[0, N_CANDIDATES]} candidates",
            fix=_RANK_AGAIN,
        )
    return Ranks(
        user_id=np.asarray(frame[USER_ID].to_list(), dtype=np.str_),
        n_candidates=frame[N_CANDIDATES].to_numpy(),
        n_better=frame[N_BETTER].cast(pl.Float64).to_numpy(),
        n_tied=frame[N_TIED].to_numpy(),
    )


def candidate_lists(rankings: pl.DataFrame) -> pl.DataFrame:
    """Return what each user was asked, whatever the order of the rows.

    Args:
        rankings: user_id, item_id, is_target.

    Returns:
        user_id, target, items (sorted), by user_id.
    """
    return (
        rankings.sort(USER_ID, ITEM_ID)
        .group_by(USER_ID, maintain_order=True)
        .agg(pl.col(ITEM_ID).filter(pl.col(IS_TARGET)).first().alias(TARGET), pl.col(ITEM_ID).alias(_ITEMS))
    )


def candidate_sha256(rankings: pl.DataFrame) -> str:
    """Return one hash over who was asked what; equal to the data set's own `candidates_sha256` of the same examples.

    Args:
        rankings: user_id, item_id, is_target; in any order.

    Returns:
        sha256 as hex.
    """
    lines = sorted(json.dumps([user, target, items]) for user, target, items in candidate_lists(rankings).iter_rows())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _checked(rankings: pl.DataFrame, repeats: bool) -> pl.DataFrame:
    """Return the five columns with their types, or refuse what cannot be trusted."""
    frame = _typed(rankings)
    nan = frame.filter(pl.col(SCORE).is_nan())
    if len(nan):
        raise DataError(f"{len(nan)} scores are NaN, the first is {_pair(nan)}", fix="the model is broken: look at its training loss, then train it again")
    if repeats:
        frame = frame.group_by(USER_ID, ITEM_ID).agg(pl.col(SCORE).max(), pl.col(RANK).min(), pl.col(IS_TARGET).any())
    twice = frame.group_by(USER_ID, ITEM_ID).len().filter(pl.col("len") > 1).sort(USER_ID, ITEM_ID)
    if len(twice):
        raise DataError(f"{len(twice)} pairs of user and item stand more than once, the first is {_pair(twice)}", fix=_RANK_AGAIN)
    targets = frame.group_by(USER_ID).agg(pl.col(IS_TARGET).sum()).filter(pl.col(IS_TARGET) != 1).sort(USER_ID)
    if len(targets):
        raise DataError(
            f"user '{targets[0, USER_ID]}' has {targets[0, IS_TARGET]} targets, each user needs exactly one ({len(targets)} users are affected)",
            fix=_RANK_AGAIN,
        )
    return frame


def _typed(rankings: pl.DataFrame) -> pl.DataFrame:
    missing = [c for c in (USER_ID, ITEM_ID, SCORE, RANK, IS_TARGET) if c not in rankings.columns]
    if missing:
        raise DataError(f"the rankings have no column {', '.join(missing)}; found: {', '.join(rankings.columns) or 'none'}", fix=_RANK_AGAIN)
    texts = pl.col(USER_ID, ITEM_ID).cast(pl.String)
    frame = rankings.select(texts, pl.col(SCORE).cast(pl.Float64), RANK, pl.col(IS_TARGET).cast(pl.Boolean).fill_null(False))
    if frame.is_empty():
        raise DataError("the rankings hold no row", fix=_RANK_AGAIN)
    if frame.select(pl.col(USER_ID, ITEM_ID).null_count()).sum_horizontal().item():
        raise DataError("the rankings hold rows without user_id or item_id", fix=_RANK_AGAIN)
    return frame


def _pair(frame: pl.DataFrame) -> str:
    return f"user '{frame[0, USER_ID]}', item '{frame[0, ITEM_ID]}'"


def _check_places(counts: pl.DataFrame) -> None:
    place = pl.col("target_place")
    wrong = counts.filter(pl.col("ranked") & (place.is_null() | (place < 1)))
    if len(wrong):
        raise DataError(f"user '{wrong[0, USER_ID]}' has a listed target at rank {wrong[0, 'target_place']}, a place is 1 or more", fix=_RANK_AGAIN)
