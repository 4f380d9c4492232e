"""Draw the candidates each target is ranked among: seeded, once, the same for every model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.data.draws import Keys, below, combine, text_key, text_keys
from recmerge.errors import DataError
from recmerge.names import CANDIDATES, ITEM_ID, POSITION, TARGET, TIMESTAMP, TITLE, USER_ID

ANSWER_TITLES = 5  # of the published code: the target and four negatives
_PLACE = 1 << 40  # counters far behind those of the draws
_EXACT = 1 << 41
_NOISE = 1 << 42
_ROUNDS = 3
_CELLS = 1 << 21  # drawn numbers in memory at once

Ints = npt.NDArray[np.int64]
Preferred = Callable[[Ints], Ints]  # (R,) row numbers to (R, W) item numbers, the most wanted first


@dataclass(frozen=True)
class Catalogue:
    """The items negatives are drawn from, and who may not be given what.

    Args:
        items: I item ids, sorted.
        classes: I numbers; two items of one class are never candidates together (equal titles).
        users: U user ids, sorted.
        taken: Sorted `user * n_classes + class` of what a user's own items exclude.
    """

    items: pl.Series
    classes: Ints
    users: pl.Series
    taken: Ints

    @property
    def n_classes(self) -> int:
        """How many different classes there are."""
        return int(self.classes.max()) + 1 if len(self.classes) else 0


def clean_catalogue(items: pl.DataFrame, events: pl.DataFrame, before: int | None = None) -> Catalogue:
    """Exclude every item of the user's own, now or later, and every item whose title equals one of theirs.

    Args:
        items: item_id, title, by item_id.
        events: user_id, item_id, timestamp of all splits.
        before: Hold only items that somebody bought before this time, in seconds; None: all.

    Returns:
        A catalogue whose classes are titles.
    """
    users = events[USER_ID].unique().sort()
    held = items if before is None else items.filter(pl.col(ITEM_ID).is_in(events.filter(pl.col(TIMESTAMP) < before)[ITEM_ID].unique().implode()))
    classes = held[TITLE].rank("dense").cast(pl.Int64).to_numpy() - 1
    numbered = pl.DataFrame({TITLE: held[TITLE], "class": classes}).unique()
    own = events.join(items.select(ITEM_ID, TITLE), on=ITEM_ID).join(numbered, on=TITLE)
    pairs = codes(own[USER_ID], users) * (int(classes.max()) + 1) + own["class"].to_numpy()
    return Catalogue(held[ITEM_ID], classes, users, np.unique(pairs))


def published_catalogue(items: pl.DataFrame, events: pl.DataFrame) -> Catalogue:
    """Exclude nothing, as the published code does: only the 29 drawn items differ from each other.

    Source: WeaveRec's published data_process.py, whose exclusion of history and target compares numbers with texts.

    Args:
        items: item_id, by item_id.
        events: user_id of all splits.

    Returns:
        A catalogue of single items, free to everyone.
    """
    return Catalogue(items[ITEM_ID], np.arange(items.height), events[USER_ID].unique().sort(), np.empty(0, np.int64))


def codes(values: pl.Series, known: pl.Series) -> Ints:
    """Return the place of each value in `known`, which holds them all and no value twice."""
    table = pl.DataFrame({"value": known, "code": np.arange(len(known))})
    return pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")["code"].to_numpy()


def row_keys(domain: str, split: str, rows: pl.DataFrame, seed: int) -> Keys:
    """Return each row's key: its draws depend on (seed, domain, split, user, position) alone.

    Args:
        domain: Its name.
        split: train, valid or test.
        rows: user_id, position.
        seed: The build's.

    Returns:
        One key per row.
    """
    users = rows[USER_ID].unique().sort()
    keys = text_keys(users.to_list(), text_key("rows", seed, domain, split))
    return combine(keys[codes(rows[USER_ID], users)], rows[POSITION].to_numpy())


def with_candidates(rows: pl.DataFrame, keys: Keys, catalogue: Catalogue, n_candidates: int) -> pl.DataFrame:
    """Give every row its candidates.

    Args:
        rows: user_id, target.
        keys: Of each row, see `row_keys`.
        catalogue: Where negatives come from.
        n_candidates: C, the target among them.

    Returns:
        The rows with candidates: C item ids, the target at a place drawn by the key.

    Raises:
        DataError: There are too few items for that many.
    """
    owners = codes(rows[USER_ID], catalogue.users)
    _refuse_few(catalogue, n_candidates)
    negatives = draw_negatives(keys, owners, catalogue, n_candidates - 1)
    targets = codes(rows[TARGET], catalogue.items)
    listed = _insert(negatives, targets, below(combine(keys, _PLACE), n_candidates))
    return rows.with_columns(_item_lists(listed, catalogue.items).alias(CANDIDATES))


def draw_negatives(keys: Keys, owners: Ints, catalogue: Catalogue, n: int) -> Ints:
    """Draw items uniformly, without those excluded and without two of one class.

    Args:
        keys: R keys.
        owners: R user numbers.
        catalogue: I items.
        n: How many per row; there must be enough.

    Returns:
        R x n item numbers in random order.
    """
    out, n_items = np.empty((len(keys), n), np.int64), len(catalogue.items)

    def drawn(rows: Ints) -> Ints:
        return below(combine(keys[rows, None], np.arange(width)), n_items)

    def all_items(rows: Ints) -> Ints:
        return np.argsort(combine(keys[rows, None], _EXACT + np.arange(n_items)), axis=1, kind="stable")

    pending, width = np.arange(len(keys)), n + n // 4 + 8
    for _ in range(_ROUNDS if n_items > 4 * n else 0):
        # A wider draw begins with the narrower one, so what a row gets does not depend on the width.
        pending, width = fill(out, pending, width, drawn, owners, catalogue), 2 * width
    fill(out, pending, n_items, all_items, owners, catalogue)
    return out


def fill(out: Ints, pending: Ints, width: int, preferred: Preferred, owners: Ints, catalogue: Catalogue) -> Ints:
    """Give the pending rows that have enough acceptable items among the preferred ones the first of these.

    Args:
        out: (R, n) item numbers, of which rows are filled.
        pending: Row numbers to fill.
        width: W, of what `preferred` returns.
        preferred: Of some rows; one item may stand twice.
        owners: (R,) user numbers.
        catalogue: I items.

    Returns:
        The row numbers left, with too few.
    """
    left = [np.empty(0, np.int64)]
    for rows in chunks(pending, width):
        wanted = preferred(rows)
        keep = _acceptable(wanted, owners[rows], catalogue)
        enough = keep.sum(axis=1) >= out.shape[1]
        first = np.argsort(~keep[enough], axis=1, kind="stable")[:, : out.shape[1]]
        out[rows[enough]] = np.take_along_axis(wanted[enough], first, axis=1)
        left.append(rows[~enough])
    return np.concatenate(left)


def _acceptable(drawn: Ints, owners: Ints, catalogue: Catalogue) -> npt.NDArray[np.bool_]:
    """Tell which draws are the first of their class in their row and not excluded for its user."""
    classes = catalogue.classes[drawn]
    order = np.argsort(classes, axis=1, kind="stable")
    ordered = np.take_along_axis(classes, order, axis=1)
    repeat = np.zeros_like(ordered, dtype=bool)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    keep = np.empty_like(repeat)
    np.put_along_axis(keep, order, ~repeat, axis=1)
    if len(catalogue.taken):
        pairs = owners[:, None] * catalogue.n_classes + classes
        place = np.minimum(np.searchsorted(catalogue.taken, pairs), len(catalogue.taken) - 1)
        keep &= catalogue.taken[place] != pairs
    return keep


def chunks(rows: Ints, width: int) -> Iterator[Ints]:
    """Cut row numbers so that a block of `width` numbers for each row of a part stays small.

    Args:
        rows: Row numbers.
        width: Numbers in memory at once for each.

    Yields:
        The parts, in order.
    """
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _insert(negatives: Ints, targets: Ints, places: Ints) -> Ints:
    """Put each row's target at its place among its negatives: R x n and R to R x (n + 1)."""
    n_rows, n = negatives.shape
    columns = np.arange(n + 1)
    source = np.minimum(columns - (columns > places[:, None]), n - 1)
    listed = np.take_along_axis(negatives, source, axis=1)
    listed[np.arange(n_rows), places] = targets
    return listed


def _item_lists(numbers: Ints, items: pl.Series) -> pl.Series:
    if not len(numbers):
        return pl.Series([], dtype=pl.List(pl.String))
    return items.gather(numbers.ravel()).reshape(numbers.shape).arr.to_list()


def with_answers(rows: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """Add the published code's answers: the target, then four of the negatives at random.

    Source: WeaveRec's published data_process.py. Ranks 2 to 5 of such an answer are noise.

    Args:
        rows: target, candidates (C item ids).
        keys: Of each row.

    Returns:
        The rows with answer: 5 item ids (C where there are fewer), the target first.
    """
    listed = np.array(rows[CANDIDATES].to_list(), dtype=object).reshape(rows.height, -1)
    targets = rows[TARGET].to_numpy()
    n_candidates = listed.shape[1]
    order = combine(keys[:, None], _NOISE + np.arange(n_candidates))
    own = np.argmax(listed == targets[:, None], axis=1)  # one occurrence is the target itself, a second one is a negative
    order[np.arange(rows.height), own] = np.uint64(0xFFFFFFFFFFFFFFFF)
    noise = np.take_along_axis(listed, np.argsort(order, axis=1, kind="stable"), axis=1)[:, : min(ANSWER_TITLES, n_candidates) - 1]
    answers = np.concatenate([targets[:, None], noise], axis=1)
    return rows.with_columns(pl.Series("answer", answers.tolist(), dtype=pl.List(pl.String)))


def _refuse_few(catalogue: Catalogue, n_candidates: int) -> None:
    owned = np.bincount(catalogue.taken // max(catalogue.n_classes, 1), minlength=len(catalogue.users))
    free = catalogue.n_classes - owned
    worst = int(np.argmin(free))
    if free[worst] < n_candidates - 1:
        raise DataError(
            f"n_candidates {n_candidates} needs {n_candidates - 1} negatives, but for user '{catalogue.users[worst]}' only {int(free[worst])} of "
            f"{catalogue.n_classes} titles are neither their own nor equal to one",
            fix=f"use more items, or --set n_candidates={max(int(free[worst]) + 1, 2)}",
        )
