"""Which items the same users bought: the counts behind co-occurrence and item-kNN."""

import numpy as np
import polars as pl

from recmerge.data.dataset import Domain, training_events
from recmerge.names import ITEM_ID, POSITION, USER_ID
from recmerge.rankers.per_domain import Numbers, Places, place_by_id, places_of

_PENDING = 20_000_000  # pairs held uncounted


def baskets(domain: Domain) -> tuple[Places, Numbers, Numbers]:
    """Return a domain's training events as numbers; an item that a user bought twice counts once, where it was first bought.

    Args:
        domain: With N such events of I items and U users.

    Returns:
        The items' places, by item id; (N,) user numbers 0 to U - 1, ascending; (N,) item places in each user's order.
    """
    events = training_events(domain).sort(USER_ID, POSITION).unique([USER_ID, ITEM_ID], keep="first", maintain_order=True)
    places = place_by_id(events[ITEM_ID].unique().sort())
    users = events.select(pl.col(USER_ID).rle_id().cast(pl.Int64)).to_series().to_numpy()
    return places, users, places_of(places, events[ITEM_ID].to_list())


def count_pairs(users: Numbers, items: Numbers, n_items: int, window: int | None = None) -> tuple[Numbers, Numbers]:
    """Count pairs of items of one user, those next to each other first, then those one further apart.

    Args:
        users: (N,) ascending.
        items: (N,) places of distinct items of each user, in their order.
        n_items: How many items there are.
        window: Places in a user's order that the two of a pair lie apart at most; None: any.

    Returns:
        (P,) smaller place * n_items + larger place, ascending, and (P,) how many users have both.
    """
    none = np.empty(0, np.int64)
    counted, pending = (none, none), [none]
    first = np.arange(len(users))  # events that have one of the same user `distance` further on
    for distance in range(1, min(len(users), window or len(users)) + 1):
        first = first[: np.searchsorted(first, len(users) - distance)]
        first = first[users[first] == users[first + distance]]
        if not len(first):
            break
        one, other = items[first], items[first + distance]
        pending.append(np.minimum(one, other) * n_items + np.maximum(one, other))
        if sum(map(len, pending)) > _PENDING:
            counted, pending = _add(counted, pending), [none]
    return _add(counted, pending)


def _add(counted: tuple[Numbers, Numbers], pending: list[Numbers]) -> tuple[Numbers, Numbers]:
    """Return the counts with the pending pairs counted too."""
    new, n_new = np.unique(np.concatenate(pending), return_counts=True)
    pairs, place = np.unique(np.concatenate([counted[0], new]), return_inverse=True)
    counts = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(counts, place, np.concatenate([counted[1], n_new]))
    return pairs, counts
