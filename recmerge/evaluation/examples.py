"""Some users of an evaluation: what they bought, what was proposed, and where each run put it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.names import IS_TARGET, ITEM_ID, POSITION, RANK, SCORE, SPLIT, TITLE, USER_ID

BETTER, WORSE, DRAWN = "better", "worse", "drawn"
PER_KIND, N_HISTORY, N_TOP, MAX_RUNS = 2, 8, 5, 6
_N_ALONE = 6  # users where there is no second run

Ranks = Mapping[str, Mapping[str, float | None]]  # by user and item


@dataclass(frozen=True)
class Picked:
    """Which users are shown, and of how many of each kind.

    Args:
        users: Kind (better, worse, drawn) by user_id, in the order of the page.
        n_better: Users whose target the first run ranks better than the second; None: there is no second.
        n_worse: Users whose target it ranks worse.
        n_users: All users.
    """

    users: Mapping[str, str]
    n_better: int | None
    n_worse: int | None
    n_users: int


@dataclass(frozen=True)
class Candidate:
    """One candidate of a user.

    Args:
        title: Its title, as the data set has it.
        is_target: It is what the user bought.
        ranks: Its 1-based rank by each run, the mean over the orders of a tie; None: not ranked.
    """

    title: str
    is_target: bool
    ranks: tuple[float | None, ...]


@dataclass(frozen=True)
class Example:
    """One user.

    Args:
        user_id: Who.
        kind: Why: better, worse or drawn.
        history: Titles of the last purchases before the target, oldest first.
        n_history: How many purchases there are before the target.
        candidates: The first run's best, in its order, and the target, if it is not among them, last.
    """

    user_id: str
    kind: str
    history: tuple[str, ...]
    n_history: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Shown:
    """Users with the runs that rank for them.

    Args:
        picked: How the users were chosen.
        examples: What is shown of them.
        runs: Keys of the runs, in the order of `Candidate.ranks`; the first is the judged one, the second that with which it was compared for the choice.
        seed: Of the choice.
    """

    picked: Picked
    examples: Sequence[Example]
    runs: Sequence[str]
    seed: int


def pick_users(user_ids: Sequence[str], first: npt.NDArray[np.float64], second: npt.NDArray[np.float64] | None, seed: int) -> Picked:
    """Draw the users to show: two where the first run is better, two where it is worse, two of the others.

    Args:
        user_ids: U users.
        first: (U,) the target's rank by the first run; inf for a miss.
        second: (U,) by the run it is compared with; None: six users are drawn from all.
        seed: Of the draw.

    Returns:
        Fewer users where there are fewer of a kind.
    """
    order = np.random.default_rng(seed).permutation(len(user_ids))
    if second is None:
        return Picked({user_ids[i]: DRAWN for i in order[:_N_ALONE]}, None, None, len(user_ids))
    better, worse = first < second, first > second
    chosen = {int(i): BETTER for i in order[better[order]][:PER_KIND]} | {int(i): WORSE for i in order[worse[order]][:PER_KIND]}
    chosen |= {int(i): DRAWN for i in [i for i in order if int(i) not in chosen][:PER_KIND]}
    return Picked({user_ids[i]: kind for i, kind in chosen.items()}, int(better.sum()), int(worse.sum()), len(user_ids))


def candidate_ranks(rankings: pl.DataFrame, users: Sequence[str], mode: str = "score") -> dict[str, dict[str, float | None]]:
    """Rank every candidate of some users by the rule of the metrics.

    Args:
        rankings: user_id, item_id, score (null: not ranked), rank.
        users: Whom.
        mode: "score": ranks come from the scores, ties share their mean. "generate": they are the stored ones, such as the places in a model's own output.

    Returns:
        1-based rank by user and item, None where the candidate was not ranked.
    """
    own = rankings.with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String)).filter(pl.col(USER_ID).is_in(list(users)))
    own = own.group_by(USER_ID, ITEM_ID).agg(pl.col(SCORE).max(), pl.col(RANK).min())  # published lists may name an item twice
    place = pl.col(SCORE).rank("average", descending=True).over(USER_ID) if mode == "score" else pl.when(pl.col(SCORE).is_not_null()).then(pl.col(RANK))
    found: dict[str, dict[str, float | None]] = {user: {} for user in users}
    for user, item, rank in own.select(USER_ID, ITEM_ID, place.cast(pl.Float64).alias(RANK)).iter_rows():
        found[user][item] = rank
    return found


def describe_users(picked: Picked, targets: Mapping[str, str], ranks: Sequence[Ranks], items: pl.DataFrame, events: pl.DataFrame, split: str) -> list[Example]:
    """Collect what the page shows of each picked user.

    Args:
        picked: Whom.
        targets: Their targets' item ids.
        ranks: By run, from `candidate_ranks`; the first run's best candidates are shown.
        items: item_id, title; an item that is not there is shown by its id.
        events: user_id, item_id, position, split.
        split: What was asked: the history is all before that event.

    Returns:
        In the order of `picked`.
    """
    histories = _histories(list(picked.users), events, split)
    shown = {user: _shown(ranks[0][user], targets[user]) for user in picked.users}
    needed = {item for user in picked.users for item in (*histories[user][-N_HISTORY:], *shown[user])}
    known = items.select(pl.col(ITEM_ID).cast(pl.String), TITLE).filter(pl.col(ITEM_ID).is_in(list(needed)))
    titles = {item: title or item for item, title in known.iter_rows()}
    return [
        Example(
            user_id=user,
            kind=kind,
            history=tuple(titles.get(i, i) for i in histories[user][-N_HISTORY:]),
            n_history=len(histories[user]),
            candidates=tuple(Candidate(titles.get(i, i), i == targets[user], tuple(run[user].get(i) for run in ranks)) for i in shown[user]),
        )
        for user, kind in picked.users.items()
    ]


def targets_of(rankings: pl.DataFrame, users: Sequence[str]) -> dict[str, str]:
    """Return the target's item id of some users of rankings (user_id, item_id, is_target)."""
    rows = rankings.filter(pl.col(IS_TARGET)).select(pl.col(USER_ID, ITEM_ID).cast(pl.String)).filter(pl.col(USER_ID).is_in(list(users)))
    return dict(rows.iter_rows())


def _shown(ranks: Mapping[str, float | None], target: str) -> list[str]:
    """Return the best candidates by rank, equal ones by id, and the target."""
    order = sorted((rank, item) for item, rank in ranks.items() if rank is not None)
    return list(dict.fromkeys([*(item for _, item in order[:N_TOP]), target]))


def _histories(users: Sequence[str], events: pl.DataFrame, split: str) -> dict[str, list[str]]:
    own = events.with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String)).filter(pl.col(USER_ID).is_in(list(users)))
    asked = own.filter(pl.col(SPLIT) == split).select(USER_ID, pl.col(POSITION).alias("asked"))
    before = own.join(asked, on=USER_ID).filter(pl.col(POSITION) < pl.col("asked")).sort(USER_ID, POSITION)
    found: dict[str, list[str]] = {user: [] for user in users}
    for user, item in before.select(USER_ID, ITEM_ID).iter_rows():
        found[user].append(item)
    return found
