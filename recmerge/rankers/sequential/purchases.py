"""One domain's purchases as numbers, and the questions of its validation split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.data.dataset import Domain, Example, examples
from recmerge.names import ITEM_ID, POSITION, SPLIT, TIMESTAMP, TRAIN, USER_ID, VALID
from recmerge.rankers.per_domain import Numbers, Places

COLD = 0  # the number that stands for padding and for every item that is not in the catalogue
NO_TIME = -1


@dataclass(frozen=True, kw_only=True)
class Histories:
    """What U buyers bought.

    Args:
        starts: (U + 1,) where each buyer's purchases start, and the end of the last.
        bought: (N,) numbers of items, buyer by buyer, oldest first.
        times: (N,) seconds since 1970; -1 where unknown.
    """

    starts: Numbers
    bought: Numbers
    times: Numbers


@dataclass(frozen=True, kw_only=True)
class Purchases(Histories):
    """The training events of a domain with U buyers and I items in its catalogue.

    Args:
        domain: Where they are from.
        items: Item id to its number, 1 to I, by item id; the catalogue, whether bought or not.
        users: User id to its number, 1 to U; those with training events.
    """

    domain: Domain
    items: Places
    users: Places


@dataclass(frozen=True, kw_only=True)
class Mixed(Histories):
    """The training events of S domains side by side; buyers and items are numbered on from one to the next.

    Args:
        edges: (S + 1,) the first item of each domain, and one more than the last of all.
    """

    edges: Numbers


@dataclass(frozen=True)
class Asked:
    """B users' histories and what is asked of them.

    Args:
        users: (B,) their numbers; 0: never trained on.
        starts: (B + 1,) where each history starts, and the end of the last.
        bought: (N,) numbers of the known items of the histories, oldest first.
        candidates: (B, C) numbers; 0: not in the catalogue.
        targets: (B,) numbers.
    """

    users: Numbers
    starts: Numbers
    bought: Numbers
    candidates: Numbers
    targets: Numbers


def read_purchases(domain: Domain) -> Purchases:
    """Number a domain's items, buyers and training events.

    Args:
        domain: Whose training events, and whose catalogue, are read.

    Returns:
        The purchases; equal events in another order of rows give equal numbers.
    """
    items = number(domain.items[ITEM_ID].sort())
    events = domain.events.filter(pl.col(SPLIT) == TRAIN).sort(USER_ID, POSITION)
    counts = events.group_by(USER_ID, maintain_order=True).len()
    starts = np.concatenate([[0], counts["len"].to_numpy().cumsum()]).astype(np.int64)
    bought = np.fromiter((items[item] for item in events[ITEM_ID]), dtype=np.int64, count=len(events))
    times = events[TIMESTAMP].fill_null(NO_TIME).to_numpy().astype(np.int64)
    return Purchases(domain=domain, items=items, users=number(counts[USER_ID]), starts=starts, bought=bought, times=times)


def number(ids: Sequence[str] | pl.Series) -> Places:
    """Number distinct ids 1, 2, ... in their order; 0 stays free for what is unknown."""
    return {name: place for place, name in enumerate(ids, start=1)}


def numbers_of(places: Places, ids: Sequence[str]) -> Numbers:
    """Return the number of each id; 0 for an unknown one."""
    return np.fromiter((places.get(name, COLD) for name in ids), dtype=np.int64, count=len(ids))


def read_questions(questions: Sequence[Example], items: Places, users: Places) -> Asked:
    """Number what is asked.

    Args:
        questions: B users with C candidates each; items outside the catalogue are left out of the histories.
        items: Item id to its number.
        users: User id to its number.

    Returns:
        The histories and candidates.
    """
    histories = [[n for item in q.history if (n := items.get(item, COLD))] for q in questions]
    starts = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    bought = np.fromiter((n for history in histories for n in history), dtype=np.int64, count=int(starts[-1]))
    width = len(questions[0].candidates) if questions else 0
    candidates: npt.NDArray[np.int64] = numbers_of(items, [c for q in questions for c in q.candidates]).reshape(len(questions), width)
    return Asked(numbers_of(users, [q.user_id for q in questions]), starts, bought, candidates, numbers_of(items, [q.target for q in questions]))


def validation_questions(purchases: Purchases, n_users: int) -> Asked | None:
    """Return what is asked of the first validation users of a seeded order.

    Args:
        purchases: The domain's.
        n_users: At most so many.

    Returns:
        The questions; None where the domain has no validation users.
    """
    found = examples(purchases.domain, VALID, n_users)
    return read_questions(found, purchases.items, purchases.users) if found else None


def mix(shops: Sequence[Purchases]) -> Mixed:
    """Put domains side by side.

    Args:
        shops: S domains.

    Returns:
        The purchases of all, and where each domain's items begin.
    """
    edges = np.cumsum([1, *(len(shop.items) for shop in shops)])
    starts = [np.zeros(1, dtype=np.int64)]
    for shop in shops:
        starts.append(shop.starts[1:] + starts[-1][-1])
    bought = [shop.bought + edge - 1 for shop, edge in zip(shops, edges, strict=False)]
    times = [shop.times for shop in shops]
    return Mixed(edges=edges, starts=np.concatenate(starts), bought=np.concatenate(bought), times=np.concatenate(times))


def mixed_questions(shops: Sequence[Purchases], n_users: int) -> Asked | None:
    """Return what is asked of the first validation users of every domain, in the numbers of `mix`.

    Args:
        shops: S domains.
        n_users: At most so many of each.

    Returns:
        The questions; None where no domain has validation users. Lists are cut to the length of the shortest, each with its target.
    """
    edges, parts = mix(shops).edges, []
    for shop, edge in zip(shops, edges, strict=False):
        found = validation_questions(shop, n_users)
        if found is not None:
            on = [np.where(numbers > COLD, numbers + edge - 1, COLD) for numbers in (found.bought, found.candidates, found.targets)]
            parts.append(Asked(np.zeros_like(found.users), found.starts, *on))
    if not parts:
        return None
    width = min(part.candidates.shape[1] for part in parts)
    candidates = [np.take_along_axis(p.candidates, np.argsort(p.candidates != p.targets[:, None], axis=1, kind="stable")[:, :width], 1) for p in parts]
    starts = [np.zeros(1, dtype=np.int64)]
    for part in parts:
        starts.append(part.starts[1:] + starts[-1][-1])
    users, bought, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("users", "bought", "targets"))
    return Asked(users, np.concatenate(starts), bought, np.concatenate(candidates), targets)
