"""Drop what cannot be used: events without a known title, repeats, rare users and items."""

import polars as pl

from recmerge.data.dataset import user_order
from recmerge.errors import DataError
from recmerge.names import ITEM_ID, TITLE, USER_ID

MIN_EVENTS = 3  # one to learn from, one for validation, one for the test


def drop_untitled(events: pl.DataFrame, items: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Drop events of items that are unknown or have no title.

    Args:
        events: With item_id.
        items: item_id, title (null where there is none).
        counts: Receives `unknown_item` and `no_title`, in events.

    Returns:
        The other events, in order.
    """
    known = events.filter(pl.col(ITEM_ID).is_in(items[ITEM_ID].implode()))
    counts["unknown_item"] = events.height - known.height
    titled = items.filter(pl.col(TITLE).is_not_null())[ITEM_ID]
    kept = known.filter(pl.col(ITEM_ID).is_in(titled.implode()))
    counts["no_title"] = known.height - kept.height
    _refuse_empty(kept, "events of items that are unknown or have no title were dropped", "check that both files name items alike")
    return kept


def drop_repeats(events: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """Keep the first event of every user and item.

    Args:
        events: In each user's order.
        counts: Receives `repeated`, in events.

    Returns:
        The first ones, in order.
    """
    kept = events.unique([USER_ID, ITEM_ID], keep="first", maintain_order=True)
    counts["repeated"] = events.height - kept.height
    return kept


def sample_users(events: pl.DataFrame, n_users: int | None, seed: int, counts: dict[str, int]) -> pl.DataFrame:
    """Keep a seeded sample of users.

    Args:
        events: With user_id.
        n_users: How many; None: all.
        seed: Another seed, another sample.
        counts: Receives `not_sampled`, in events.

    Returns:
        Their events, in order.
    """
    if n_users is None:
        return events
    chosen = user_order(events[USER_ID].unique(), seed)[:n_users]
    kept = events.filter(pl.col(USER_ID).is_in(chosen))
    counts["not_sampled"] = events.height - kept.height
    return kept


def k_core(events: pl.DataFrame, k: int, counts: dict[str, int]) -> pl.DataFrame:
    """Drop users and items with fewer than `k` events until none is left.

    Args:
        events: user_id, item_id.
        k: Least events of every user and item; a user needs three even where `k` is less, to be split.
        counts: Receives `k_core`, in events.

    Returns:
        The largest set of events in which it holds for all, in order; it does not depend on the order of dropping.

    Raises:
        DataError: Nothing is left.
    """
    before = events.height
    while True:
        height = events.height
        events = events.filter(pl.len().over(USER_ID) >= max(k, MIN_EVENTS))
        events = events.filter(pl.len().over(ITEM_ID) >= k)
        if events.height == height:
            break
    counts["k_core"] = before - events.height
    _refuse_empty(
        events,
        f"the {k}-core is empty: {before} events went in, and no set of users and items has {k} events each",
        "lower it, e.g. --set k_core=2, or use more data",
    )
    return events


def _refuse_empty(events: pl.DataFrame, what: str, fix: str) -> None:
    if events.is_empty():
        raise DataError(f"no events are left: {what}", fix=fix)
