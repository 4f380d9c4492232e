"""Groups of users that a mean over all of them could hide."""

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.names import IS_TARGET, ITEM_ID, POSITION, SPLIT, TRAIN, USER_ID

Mask = npt.NDArray[np.bool_]

ALL = "all"
TIED = "tied_last_two"
HISTORY_CUTS = {"history_1-4": (1, 4), "history_5-9": (5, 9), "history_10+": (10, None)}
HEAD_SHARE, UPPER_SHARE = 0.2, 0.5  # of the items bought in training, the most bought: the head; head and middle together

_N_HISTORY = "n_history"
_N_TRAIN = "n_train"


def user_facts(rankings: pl.DataFrame, users: pl.DataFrame, events: pl.DataFrame, split: str) -> pl.DataFrame:
    """Collect per user what the slices need.

    Args:
        rankings: user_id, item_id, is_target.
        users: user_id, tied (the test target shares its timestamp with an event beside it: the last two do, or under a time split the
            first two of the test period).
        events: user_id, item_id, position, split.
        split: What was ranked: the history is all before the test event, or before the validation event.

    Returns:
        By user_id: tied, n_history, n_train (training events of the target's item); null where the user is unknown.
    """
    target = rankings.filter(pl.col(IS_TARGET)).select(pl.col(USER_ID, ITEM_ID).cast(pl.String)).unique(USER_ID)
    bought = events.filter(pl.col(SPLIT) == TRAIN).group_by(pl.col(ITEM_ID).cast(pl.String)).agg(pl.len().alias(_N_TRAIN))
    asked = events.filter(pl.col(SPLIT) == split).select(pl.col(USER_ID).cast(pl.String), pl.col(POSITION).alias(_N_HISTORY))
    known = users.select(pl.col(USER_ID).cast(pl.String), "tied").join(asked, on=USER_ID, how="left")
    return target.join(bought, on=ITEM_ID, how="left").with_columns(pl.col(_N_TRAIN).fill_null(0)).join(known, on=USER_ID, how="left").sort(USER_ID)


def slices(facts: pl.DataFrame, cuts: tuple[int, int]) -> dict[str, Mask]:
    """Divide users into the slices of every table.

    Args:
        facts: From `user_facts`, U users.
        cuts: Training events from which an item is of the head, and from which of the middle, see `popularity_cuts`.

    Returns:
        (U,) masks by slice name. A slice without users is left out. Users unknown to the data set are in `all` alone.
    """
    masks = {ALL: np.ones(len(facts), dtype=np.bool_), TIED: _mask(facts, pl.col("tied"))}
    for name, (low, high) in HISTORY_CUTS.items():
        masks[name] = _mask(facts, pl.col(_N_HISTORY).is_between(low, high) if high else pl.col(_N_HISTORY) >= low)
    head, middle = cuts
    bought = pl.col(_N_TRAIN)
    masks["target_head"] = _mask(facts, bought >= head)
    masks["target_middle"] = _mask(facts, (bought < head) & (bought >= middle))
    masks["target_tail"] = _mask(facts, (bought < middle) & (bought > 0))
    masks["target_unseen"] = _mask(facts, pl.col(_N_TRAIN) == 0)
    return {name: mask for name, mask in masks.items() if mask.any()}


def popularity_cuts(events: pl.DataFrame) -> tuple[int, int]:
    """Return from how many training events an item belongs to the head, the most bought fifth of the items, and to the middle, the rest of their upper half.

    Args:
        events: item_id, split.

    Returns:
        The two cuts, each at least 1; items as popular as the last of a part belong to it too, so that the tail may hold less than half.
    """
    counts = events.filter(pl.col(SPLIT) == TRAIN).group_by(ITEM_ID).len()["len"].sort(descending=True)
    if counts.is_empty():
        return 1, 1
    head, middle = (int(counts[max(1, int(share * len(counts))) - 1]) for share in (HEAD_SHARE, UPPER_SHARE))
    return head, middle


def _mask(facts: pl.DataFrame, condition: pl.Expr) -> Mask:
    return facts.select(condition.fill_null(False).alias("in"))["in"].to_numpy().astype(np.bool_)
