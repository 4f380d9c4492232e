"""Put every user's events in order and hold out the last two."""

import numpy as np
import polars as pl

from recmerge.data.draws import splitmix64, text_key, text_keys
from recmerge.names import ITEM_ID, POSITION, SPLIT, TEST, TIMESTAMP, TRAIN, USER_ID, VALID

TIED = "tied"
N_EVENTS = "n_events"


def order_events(events: pl.DataFrame, tie_break: str, seed: int) -> pl.DataFrame:
    """Sort events by user, and within a user by time.

    Args:
        events: user_id, item_id, timestamp (null where unknown), in file order.
        tie_break: Among equal times: "item_id", "hash" (a seeded hash of user and item) or "file" (as in the file).
        seed: Of the hash.

    Returns:
        The events in order. A user with any unknown time keeps the order of the file.

    Raises:
        ValueError: An unknown tie_break.
    """
    numbered = events.with_row_index("file_order")
    unknown = pl.col(TIMESTAMP).is_null().any().over(USER_ID)
    if tie_break == "item_id":
        tie = pl.col(ITEM_ID)
    elif tie_break == "hash":
        numbered = numbered.with_columns(pl.Series("hash", _pair_keys(events, seed)))
        tie = pl.col("hash")
    elif tie_break == "file":
        tie = pl.col("file_order")
    else:
        raise ValueError(f"tie_break '{tie_break}' is none of item_id, hash, file")
    keys = [
        pl.col(USER_ID),
        pl.when(~unknown).then(pl.col(TIMESTAMP)),
        pl.when(~unknown).then(tie),
        pl.col("file_order"),
    ]
    return numbered.sort(keys).select(USER_ID, ITEM_ID, TIMESTAMP)


def _pair_keys(events: pl.DataFrame, seed: int) -> np.ndarray:
    base = text_key("tie", seed)
    keys = []
    for column in (USER_ID, ITEM_ID):
        distinct = events[column].unique().sort()
        table = text_keys(distinct.to_list(), base)
        keys.append(table[np.searchsorted(distinct.to_numpy(), events[column].to_numpy())])
    return splitmix64(keys[0] ^ splitmix64(keys[1]))


def split_events(events: pl.DataFrame) -> pl.DataFrame:
    """Hold out each user's last event for the test and the last but one for validation.

    Args:
        events: user_id, item_id, timestamp, in order; at least three per user.

    Returns:
        The same with position (Int32, 0-based) and split.
    """
    position = pl.int_range(pl.len(), dtype=pl.Int32).over(USER_ID)
    from_end = pl.len().over(USER_ID).cast(pl.Int32) - 1 - pl.col(POSITION)
    split = pl.when(from_end == 0).then(pl.lit(TEST)).when(from_end == 1).then(pl.lit(VALID)).otherwise(pl.lit(TRAIN))
    return events.with_columns(position.alias(POSITION)).with_columns(split.alias(SPLIT))


def user_table(events: pl.DataFrame) -> pl.DataFrame:
    """Describe each user.

    Args:
        events: As `split_events` returns them.

    Returns:
        user_id, n_events (Int32), tied (the last two events have the same known time), by user_id.
    """
    time = pl.col(TIMESTAMP)
    tied = (time.get(-1) == time.get(-2)).fill_null(False)
    return events.group_by(USER_ID, maintain_order=True).agg(pl.len().cast(pl.Int32).alias(N_EVENTS), tied.alias(TIED)).sort(USER_ID)
