"""Other candidates than the stored ones for the same questions: bought as often, called alike, the whole catalogue; or another order.

Whoever is asked, a user's list is the same: it depends on the domain, the split and the user alone. All kinds exclude what the stored
lists of profile clean exclude: the user's own items of any split, and every item titled like one of them, the target among them.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.data.candidates import Catalogue, Ints, Preferred, chunks, clean_catalogue, codes, fill
from recmerge.data.dataset import Domain, Example, training_events
from recmerge.data.draws import Keys, below, combine, text_key, text_keys
from recmerge.errors import DataError
from recmerge.names import ITEM_ID, VALID

STORED, POPULAR, SIMILAR, ALL = "stored", "popular", "similar", "all"
KINDS = (STORED, POPULAR, SIMILAR, ALL)

Likeness = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]  # T and I item ids to (T, I), higher is more alike

_PLACES = 1 << 40  # counters far behind those of the draws
_RACE = 1 << 41


def catalogue_of(domain: Domain, split: str) -> Catalogue:
    """Return what a split's questions may hold, and who may not be given what.

    Args:
        domain: Whose items and events.
        split: "valid" or "test"; under a time split, validation holds only what somebody had bought by its end.

    Returns:
        The catalogue that the stored candidates of profile clean are drawn from.
    """
    return clean_catalogue(domain.items, domain.events, domain.cuts.test if domain.cuts is not None and split == VALID else None)


def popular_candidates(domain: Domain, split: str, asked: Sequence[Example]) -> list[Example]:
    """Draw negatives one after the other, each with probability proportional to its training events among what is left.

    Items never bought in training come last, in random order, where nothing else is left.

    Args:
        domain: Whose items are drawn.
        split: What is asked, "valid" or "test".
        asked: B questions with C candidates each.

    Returns:
        The same questions, with as many candidates as before, in random order.

    Raises:
        DataError: Nobody bought anything in training, or a user has too few items left.
    """
    catalogue = catalogue_of(domain, split)
    bought = training_events(domain).group_by(ITEM_ID).len()
    counted = pl.DataFrame({ITEM_ID: catalogue.items}).join(bought, on=ITEM_ID, how="left", maintain_order="left")
    weights = counted["len"].fill_null(0).to_numpy().astype(np.int64)
    if not weights.any():
        raise DataError(f"'{domain.name}' has no training events, so no item is popular", fix="--candidates stored, or similar")
    keys = _user_keys(POPULAR, domain, split, asked)
    ends = np.cumsum(weights)
    width = 2 * _n_negatives(asked) + 16

    def drawn(rows: Ints) -> Ints:
        return np.searchsorted(ends, below(combine(keys[rows, None], np.arange(width)), ends[-1]), side="right")

    def whole(rows: Ints) -> Ints:
        # An exponential clock per item, rung after a time of mean 1 / weight, draws without replacement; it goes on where `drawn` ended.
        clocks = -np.log((combine(keys[rows, None], _RACE + np.arange(len(weights))) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54)
        rung = np.divide(clocks, weights, out=np.full_like(clocks, np.inf), where=weights > 0)
        return np.concatenate([drawn(rows), np.lexsort((clocks, rung), axis=-1)], axis=1)

    return _listed(asked, catalogue, keys, ((width, drawn), (width + len(weights), whole)))


def similar_candidates(domain: Domain, split: str, asked: Sequence[Example], likeness: Likeness) -> list[Example]:
    """Take as negatives the items most like the target; equally like ones in an order fixed by a hash of item and target.

    Args:
        domain: Whose items are taken.
        split: What is asked, "valid" or "test".
        asked: B questions with C candidates each.
        likeness: Of items to a target, e.g. of their titles.

    Returns:
        The same questions, with as many candidates as before, in random order.

    Raises:
        DataError: A user has too few items left.
    """
    catalogue = catalogue_of(domain, split)
    items = catalogue.items.to_list()
    targets = sorted({e.target for e in asked})
    numbers = {target: i for i, target in enumerate(targets)}
    target_of = np.asarray([numbers[e.target] for e in asked], dtype=np.int64)
    item_keys, target_keys = (text_keys(ids, text_key(SIMILAR, domain.name)) for ids in (items, targets))
    width = min(2 * _n_negatives(asked) + 16, len(items))

    def most_alike(target: int, values: npt.NDArray[np.float64], n: int) -> Ints:
        near = np.flatnonzero(values >= np.partition(values, -n)[-n])
        return near[np.lexsort((combine(item_keys[near], target_keys[target]), -values[near]))[:n]]

    nearest = np.empty((len(targets), width), np.int64)
    for chosen in chunks(np.arange(len(targets)), len(items)):
        for target, values in zip(chosen, likeness([targets[t] for t in chosen], items), strict=True):
            nearest[target] = most_alike(target, values, width)

    def whole(rows: Ints) -> Ints:
        found = likeness([asked[r].target for r in rows], items)
        return np.stack([most_alike(target_of[r], values, len(items)) for r, values in zip(rows, found, strict=True)])

    return _listed(asked, catalogue, _user_keys(SIMILAR, domain, split, asked), ((width, lambda rows: nearest[target_of[rows]]), (len(items), whole)))


def in_other_order(asked: Sequence[Example], seed: int) -> list[Example]:
    """Put every list in another order, drawn for each user.

    Args:
        asked: B questions.
        seed: Another seed, another order.

    Returns:
        The same questions and candidates.
    """
    keys = text_keys([e.user_id for e in asked], text_key("order", seed))
    places = (np.argsort(combine(key, np.arange(len(e.candidates))), kind="stable") for key, e in zip(keys, asked, strict=True))
    return [replace(e, candidates=tuple(e.candidates[i] for i in order)) for e, order in zip(asked, places, strict=True)]


def free_items(catalogue: Catalogue, asked: Sequence[Example]) -> npt.NDArray[np.bool_]:
    """Tell which items of a whole catalogue are each question's candidates.

    Args:
        catalogue: I items, see `catalogue_of`.
        asked: B questions; some hundred at a time.

    Returns:
        (B, I): the target, and everything that is neither the user's own nor titled like it.
    """
    owners, targets = _owners(catalogue, asked), codes(pl.Series([e.target for e in asked], dtype=pl.String), catalogue.items)
    starts, ends = (np.searchsorted(catalogue.taken, (owners + i) * catalogue.n_classes) for i in (0, 1))
    free = np.empty((len(asked), len(catalogue.items)), dtype=np.bool_)
    for row, (owner, start, end) in enumerate(zip(owners, starts, ends, strict=True)):
        own = np.zeros(catalogue.n_classes, dtype=np.bool_)
        own[catalogue.taken[start:end] - owner * catalogue.n_classes] = True
        free[row] = ~own[catalogue.classes]
    free[np.arange(len(asked)), targets] = True
    return free


def whole_catalogue_sha256(catalogue: Catalogue, asked: Sequence[Example]) -> str:
    """Return one hash over who is asked what where the candidates are all free items; equal hashes mean comparable results.

    Args:
        catalogue: I items, see `catalogue_of`.
        asked: B questions, in any order.

    Returns:
        sha256 as hex, over one JSON line of all item ids and one `[user, target, [items left out, sorted]]` per question, sorted.
    """
    items = catalogue.items.to_list()
    lines = []
    for rows in chunks(np.arange(len(asked)), len(items)):
        questions = [asked[r] for r in rows]
        for question, free in zip(questions, free_items(catalogue, questions), strict=True):
            lines.append(json.dumps([question.user_id, question.target, [items[i] for i in np.flatnonzero(~free)]], ensure_ascii=True))
    return hashlib.sha256("\n".join([json.dumps(items, ensure_ascii=True), *sorted(lines)]).encode()).hexdigest()


def _listed(asked: Sequence[Example], catalogue: Catalogue, keys: Keys, rounds: Sequence[tuple[int, Preferred]]) -> list[Example]:
    """Give every question its target and the first of the preferred items that it may hold, in an order drawn by its key.

    Later rounds, each a width and its preferred items, are for the questions that an earlier one left without enough.
    """
    owners = _owners(catalogue, asked)
    negatives = np.empty((len(asked), _n_negatives(asked)), np.int64)
    left = np.arange(len(asked))
    for width, preferred in rounds:
        left = fill(negatives, left, width, preferred, owners, catalogue)
    if len(left):
        _refuse_few(asked[left[0]], owners[left[0]], catalogue, negatives.shape[1])
    order = np.argsort(combine(keys[:, None], _PLACES + np.arange(negatives.shape[1] + 1)), axis=1, kind="stable")
    items = catalogue.items.to_list()
    found = []
    for example, numbers, places in zip(asked, negatives, order, strict=True):
        listed = [example.target, *(items[i] for i in numbers)]
        found.append(replace(example, candidates=tuple(listed[i] for i in places)))
    return found


def _refuse_few(example: Example, owner: int, catalogue: Catalogue, n: int) -> None:
    own = np.searchsorted(catalogue.taken, (owner + 1) * catalogue.n_classes) - np.searchsorted(catalogue.taken, owner * catalogue.n_classes)
    raise DataError(
        f"{n} negatives are needed, but for user '{example.user_id}' only {catalogue.n_classes - own} of {catalogue.n_classes} titles are neither "
        "their own nor equal to one",
        fix="--candidates stored, or build the data set with fewer, --set n_candidates=N",
    )


def _n_negatives(asked: Sequence[Example]) -> int:
    return max((len(e.candidates) for e in asked), default=1) - 1


def _user_keys(kind: str, domain: Domain, split: str, asked: Sequence[Example]) -> Keys:
    return text_keys([e.user_id for e in asked], text_key(kind, domain.name, split))


def _owners(catalogue: Catalogue, asked: Sequence[Example]) -> Ints:
    return codes(pl.Series([e.user_id for e in asked], dtype=pl.String), catalogue.users)
