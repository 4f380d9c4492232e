"""Put every user's events in order, and hold out the last two or what lies after two points in time."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.draws import splitmix64, text_key, text_keys
from recmerge.errors import DataError
from recmerge.names import ITEM_ID, POSITION, SPLIT, TEST, TIMESTAMP, TRAIN, UNASKED, USER_ID, VALID

TIED = "tied"
N_EVENTS = "n_events"
_PERIOD = "period"


@dataclass(frozen=True)
class Cuts:
    """The two points of a global time split: training before the first, test from the second on.

    Args:
        valid: Seconds since 1970; events before it are trained on, those from it on never.
        test: Seconds since 1970, after `valid`; the test period begins here.
    """

    valid: int
    test: int

    def __str__(self) -> str:
        return f"{moment(self.valid)} and {moment(self.test)}"


def cuts_in(split: Mapping[str, Any]) -> Cuts | None:
    """Read the cuts from how a manifest or card notes a split; None: each user's last event is the test."""
    return Cuts(split["valid_from"], split["test_from"]) if "valid_from" in split else None


@dataclass(frozen=True)
class TimeSplit:
    """How to find the cuts of a global time split.

    Args:
        valid_share: Share of the events in the validation period, above 0.
        test_share: Share of the events in the test period, above 0; less than 1 together with `valid_share`.
        cuts: The cuts themselves; the shares then do not matter.
    """

    valid_share: float = 0.1
    test_share: float = 0.1
    cuts: Cuts | None = None


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


def refuse_unknown_times(events: pl.DataFrame) -> None:
    """Refuse events that a time split cannot place.

    Args:
        events: timestamp (null where unknown).

    Raises:
        DataError: A time is unknown; the line says how many are.
    """
    unknown = events[TIMESTAMP].null_count()
    if unknown:
        raise DataError(
            f"split 'time' needs the time of every event, and {unknown:,} of {events.height:,} events have none",
            fix="use data with times, drop those lines, or split by leave_one_out",
        )


def find_cuts(times: pl.Series, split: TimeSplit) -> Cuts:
    """Return the cuts of a global time split.

    Source: Meng et al. (2020), "Exploring Data Splitting Strategies for the Evaluation of Recommendation Models", temporal global split;
    Ji et al. (2023), "A Critical Study on Data Leakage in Recommender System Offline Evaluation", why one time line for all users.

    Args:
        times: Seconds of all N events, none unknown.
        split: The shares, or the cuts.

    Returns:
        The cuts as given; or the times of the events at the places floor((1 - share) * N) of the time line, counted from 0, so that what
        lies from a cut on is at least its share and events of one time are never divided.

    Raises:
        DataError: The shares put both cuts at one time, or the first cut before all events.
    """
    if split.cuts is not None:
        return split.cuts
    ordered = times.sort()
    n = len(ordered)
    held_out = (split.valid_share + split.test_share, split.test_share)
    valid, test = (int(ordered[min(n - 1, math.floor(round((1 - share) * n, 6)))]) for share in held_out)
    if not int(ordered[0]) < valid < test:
        raise DataError(
            f"valid_share {split.valid_share} and test_share {split.test_share} of {n:,} events cut at {moment(valid)} and {moment(test)}, "
            f"but the first event is of {moment(int(ordered[0]))}: too many events share a time",
            fix="set valid_from and test_from, or other shares",
        )
    return Cuts(valid, test)


def split_by_time(events: pl.DataFrame, cuts: Cuts) -> pl.DataFrame:
    """Hold out all that happened from a point in time on, for every user the same.

    A user's first event of the validation period is the validation target, their first of the test period the test target: whoever is
    asked for has a history, and it ends at the cut. Other events of these periods are nobody's target; those of the validation period
    stand in the history of a test target, those behind a test target in none.

    Source: Ji et al. (2023), as `find_cuts`; the target "first" of those compared by Gusak et al. (2025), "Time to Split: Exploring Data
    Splitting Strategies for Offline Evaluation of Sequential Recommenders". They find that the pause before a first event is longer than
    before others; but only for the first is all of the user's history older than the cut.

    Args:
        events: user_id, item_id, timestamp, in order, no time unknown.
        cuts: Where training ends and where the test begins.

    Returns:
        The same with position (Int32, 0-based) and split: train, valid, test or unasked.
    """
    period = (pl.col(TIMESTAMP) >= cuts.valid).cast(pl.Int8) + (pl.col(TIMESTAMP) >= cuts.test).cast(pl.Int8)
    events = events.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over(USER_ID).alias(POSITION), period.alias(_PERIOD))
    asked = (pl.int_range(pl.len()).over(USER_ID, _PERIOD) == 0) & (pl.col(POSITION) > 0)
    target = pl.when(pl.col(_PERIOD) == 1).then(pl.lit(VALID)).otherwise(pl.lit(TEST))
    split = pl.when(pl.col(_PERIOD) == 0).then(pl.lit(TRAIN)).when(asked).then(target).otherwise(pl.lit(UNASKED))
    return events.with_columns(split.alias(SPLIT)).drop(_PERIOD)


def moment(seconds: int) -> str:
    """Return a time as a UTC date, with the time of day where that is not midnight."""
    when = datetime.fromtimestamp(seconds, UTC)
    return when.date().isoformat() if seconds % 86_400 == 0 else when.strftime("%Y-%m-%dT%H:%M:%S")


def user_table(events: pl.DataFrame) -> pl.DataFrame:
    """Describe each user.

    Args:
        events: As `split_events` or `split_by_time` returns them.

    Returns:
        user_id, n_events (Int32), tied (the test target has the known time of the event before or behind it, so which of the two is the
        target is a convention), by user_id.
    """
    time = pl.col(TIMESTAMP)
    neighbour = ((time == time.shift(1)) | (time == time.shift(-1))).over(USER_ID).fill_null(False)
    marked = events.with_columns(neighbour.alias(TIED) & (pl.col(SPLIT) == TEST))
    return marked.group_by(USER_ID, maintain_order=True).agg(pl.len().cast(pl.Int32).alias(N_EVENTS), pl.col(TIED).any()).sort(USER_ID)
