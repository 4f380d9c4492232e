"""From raw tables to a domain: filter, order, split, draw candidates and training rows."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.candidates import Catalogue, clean_catalogue, published_catalogue, row_keys, with_answers, with_candidates
from recmerge.data.dataset import ANSWER, Domain
from recmerge.data.draws import Keys, splitmix64, text_key
from recmerge.data.filtering import MIN_EVENTS, drop_repeats, drop_untitled, k_core, sample_users
from recmerge.data.leakage import future_counts
from recmerge.data.sources.raw import RawTables
from recmerge.data.splitting import (
    TIED,
    Cuts,
    TimeSplit,
    find_cuts,
    moment,
    order_events,
    refuse_unknown_times,
    split_by_time,
    split_events,
    user_table,
)
from recmerge.data.titles import clean_titles
from recmerge.errors import DataError
from recmerge.names import BRAND, CANDIDATES, CATEGORY, ITEM_ID, POSITION, SPLIT, TARGET, TEST, TIMESTAMP, TITLE, TRAIN, USER_ID, VALID

CLEAN, PUBLISHED = "clean", "published"
LEAVE_ONE_OUT, TIME, ASKED = "leave_one_out", "time", "asked"
PUBLISHED_ROWS = 30_000
_MISSING_TITLE = "nan"  # what the published code's prompts say where an item has no title
_COLUMNS = (USER_ID, POSITION, TARGET, CANDIDATES)
_ROW_TYPES = pl.Schema({USER_ID: pl.String(), POSITION: pl.Int32(), TARGET: pl.String(), CANDIDATES: pl.List(pl.String), ANSWER: pl.List(pl.String)})


def build_clean(
    name: str,
    raw: RawTables,
    *,
    k: int = 5,
    n_users: int | None = None,
    n_candidates: int = 30,
    tie_break: str = "item_id",
    max_rows: int | None = None,
    max_title_chars: int = 512,
    seed: int = 42,
    time_split: TimeSplit | None = None,
) -> tuple[Domain, dict[str, Any]]:
    """Build a domain by recmerge's own rules.

    Args:
        name: The domain's name; enters the draws.
        raw: What a source read.
        k: Least events of every user and item.
        n_users: A seeded sample of this many users before the k-core; None: all.
        n_candidates: Candidates per question, the target among them.
        tie_break: "item_id" or "hash", among events of one time.
        max_rows: Training rows kept, the first of the seeded order; None: all.
        max_title_chars: Longer titles are cut.
        seed: Of every draw.
        time_split: Hold out what lies after two points in time; None: each user's last two events. Filters come before the split, and
            see all events. Negatives are items bought before the period of a question ended: a training row knows none of the
            items that appear later.

    Returns:
        The domain, and counts for the manifest.

    Raises:
        DataError: A filter leaves nothing, there are too few items for the candidates, or a time split cannot be made: a time is
            unknown, or a cut leaves nothing to train on or to ask about.
    """
    if time_split is not None:
        refuse_unknown_times(raw.interactions)
    dropped: dict[str, int] = {}
    cleaned = clean_titles(raw.items[TITLE].to_list(), max_title_chars)
    items = raw.items.with_columns(pl.Series(TITLE, cleaned.titles, dtype=pl.String))
    events = drop_untitled(raw.interactions, items, dropped)
    events = drop_repeats(order_events(events, tie_break, seed), dropped)
    events = k_core(sample_users(events, n_users, seed, dropped), k, dropped)
    cuts = None if time_split is None else find_cuts(events[TIMESTAMP], time_split)
    events = split_events(events) if cuts is None else split_by_time(events, cuts)
    predicted = events.filter((pl.col(SPLIT) == TRAIN) & (pl.col(POSITION) > 0))
    if cuts is not None:
        _refuse_empty_split(events, predicted.height, cuts)
    items = _used_items(items, events)
    catalogues = _catalogues(items, events, cuts)
    rows = _rows(name, TRAIN, predicted, catalogues[TRAIN], n_candidates, seed, max_rows)
    candidates = _candidates(name, events, catalogues, n_candidates, seed)
    domain = Domain(name, CLEAN, items, events, user_table(events), rows, candidates, cuts)
    facts = _facts(domain, raw, dropped)
    facts["titles"] = {"decoded": cleaned.n_decoded, "cut": cleaned.n_cut, "missing": sum(t is None for t in cleaned.titles)}
    return domain, facts


def build_published(
    name: str,
    raw: RawTables,
    *,
    n_users: int | None = None,
    n_candidates: int = 30,
    max_rows: int | None = None,
    seed: int = 42,
) -> tuple[Domain, dict[str, Any]]:
    """Build a domain as the published WeaveRec code does, faults included.

    Source: WeaveRec's published raw_process.py and data_process.py.
    Departures: every draw is seeded; equal times keep the order of the file (theirs is not stable).

    Args:
        name: The domain's name; enters the draws.
        raw: What a source read; it is not filtered, for the published files are a 5-core already.
        n_users: A seeded sample of users; None: all.
        n_candidates: Candidates per question, the target among them; it may be there twice.
        max_rows: Rows sampled from the training events, to which all validation rows are added; None: 30,000.
        seed: Of every draw.

    Returns:
        The domain, and counts for the manifest.

    Raises:
        DataError: No user has three events, or there are too few items for the candidates.
    """
    dropped: dict[str, int] = {}
    events = sample_users(raw.interactions, n_users, seed, dropped)
    long_enough = events.filter(pl.len().over(USER_ID) >= MIN_EVENTS)
    dropped["too_short"] = events.height - long_enough.height
    if long_enough.is_empty():
        raise DataError(f"no user has {MIN_EVENTS} events, {events.height} events are left after sampling", fix="use more data")
    events = split_events(order_events(long_enough, "file", seed))
    named = raw.items.join(events.select(pl.col(ITEM_ID).unique()), on=ITEM_ID, how="full", coalesce=True)
    missing = named.filter(pl.col(ITEM_ID).is_in(events[ITEM_ID].implode()) & pl.col(TITLE).is_null()).height
    items = _used_items(named.with_columns(pl.col(TITLE).fill_null(_MISSING_TITLE)), events)
    catalogue = published_catalogue(items, events)
    predicted = events.filter((pl.col(SPLIT) == TRAIN) & (pl.col(POSITION) > 0))
    learnt = _rows(name, TRAIN, predicted, catalogue, n_candidates, seed, max_rows or PUBLISHED_ROWS)
    validation = _rows(name, VALID, events.filter(pl.col(SPLIT) == VALID), catalogue, n_candidates, seed, None)
    rows = _shuffled(pl.concat([learnt, validation]), seed)
    rows = with_answers(rows, _order_keys(name, rows, seed))
    candidates = _candidates(name, events, {VALID: catalogue, TEST: catalogue}, n_candidates, seed)
    domain = Domain(name, PUBLISHED, items, events, user_table(events), rows, candidates)
    facts = _facts(domain, raw, dropped)
    facts["titles"] = {"decoded": 0, "cut": 0, "missing": missing}
    facts["counts"]["validation_rows"] = validation.height
    return domain, facts


def build_asked(name: str, raw: RawTables) -> tuple[Domain, dict[str, Any]]:
    """Build a domain whose test questions its source asks itself: nothing is filtered or drawn, and there is nothing to train on.

    Args:
        name: The domain's name.
        raw: What a source read, with its questions.

    Returns:
        The domain, of profile published: each user's last event is the test, none is trained on, nobody is asked for validation; and
        counts for the manifest, with the source's own wording.

    Raises:
        DataError: No question is left.
    """
    assert raw.asked is not None
    if raw.asked.questions.is_empty():
        raise DataError(f"none of {raw.n_lines:,} lines is a question that can be used", fix="look at rejects.jsonl; is this the right file?")
    events = split_events(order_events(raw.interactions, "file", 0))
    items = raw.items.select(ITEM_ID, TITLE, pl.col(BRAND, CATEGORY).fill_null("")).sort(ITEM_ID)
    candidates = raw.asked.questions.select(pl.lit(TEST).alias(SPLIT), USER_ID, TARGET, CANDIDATES).sort(USER_ID)
    domain = Domain(name, PUBLISHED, items, events, user_table(events), pl.DataFrame(schema=_ROW_TYPES), candidates)
    facts = _facts(domain, raw, {})
    facts["split"] = {"kind": ASKED}
    facts["titles"] = {"decoded": 0, "cut": 0, "missing": 0}
    facts["wording"] = asdict(raw.asked.wording)
    return domain, facts


def _used_items(items: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    used = items.filter(pl.col(ITEM_ID).is_in(events[ITEM_ID].unique().implode()))
    return used.select(ITEM_ID, TITLE, pl.col(BRAND, CATEGORY).fill_null("")).sort(ITEM_ID)


def _order_keys(name: str, rows: pl.DataFrame, seed: int) -> Keys:
    return splitmix64(row_keys(name, "order", rows, seed) ^ text_key("order"))


def _shuffled(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Put rows in their seeded order, whatever order they come in."""
    keys = _order_keys("", rows, seed)
    return rows[np.lexsort((rows[POSITION].to_numpy(), keys))]


def _rows(name: str, split: str, predicted: pl.DataFrame, catalogue: Catalogue, n_candidates: int, seed: int, max_rows: int | None) -> pl.DataFrame:
    rows = _shuffled(predicted.select(USER_ID, POSITION, pl.col(ITEM_ID).alias(TARGET)), seed).head(max_rows or predicted.height)
    return with_candidates(rows, row_keys(name, split, rows, seed), catalogue, n_candidates).select(_COLUMNS)


def _catalogues(items: pl.DataFrame, events: pl.DataFrame, cuts: Cuts | None) -> dict[str, Catalogue]:
    """Return where each split's negatives come from: the whole catalogue, under a time split as it was at the end of the split's period."""
    whole = clean_catalogue(items, events)
    if cuts is None:
        return {TRAIN: whole, VALID: whole, TEST: whole}
    return {TRAIN: clean_catalogue(items, events, cuts.valid), VALID: clean_catalogue(items, events, cuts.test), TEST: whole}


def _candidates(name: str, events: pl.DataFrame, catalogues: Mapping[str, Catalogue], n_candidates: int, seed: int) -> pl.DataFrame:
    asked = []
    for split in (VALID, TEST):
        questions = events.filter(pl.col(SPLIT) == split).select(USER_ID, POSITION, pl.col(ITEM_ID).alias(TARGET))
        drawn = with_candidates(questions, row_keys(name, split, questions, seed), catalogues[split], n_candidates)
        asked.append(drawn.select(pl.lit(split).alias(SPLIT), USER_ID, TARGET, CANDIDATES))
    return pl.concat(asked)


def _refuse_empty_split(events: pl.DataFrame, n_predicted: int, cuts: Cuts) -> None:
    """Refuse cuts that leave nothing to train on, or nobody to ask about."""
    counts = {"training rows": n_predicted, **{f"{split} users": events.filter(pl.col(SPLIT) == split).height for split in (VALID, TEST)}}
    empty = [what for what, n in counts.items() if not n]
    if empty:
        first, last = int(events[TIMESTAMP].min()), int(events[TIMESTAMP].max())  # type: ignore[arg-type]
        raise DataError(
            f"cuts at {cuts} leave no {' and no '.join(empty)}: the events are of {moment(first)} to {moment(last)}",
            fix="choose valid_from and test_from between these, test_from the later one",
        )


def _facts(domain: Domain, raw: RawTables, dropped: dict[str, int]) -> dict[str, Any]:
    blank = domain.events.filter(pl.col(TIMESTAMP).is_null())
    return {
        "counts": {
            "users": domain.users.height,
            "items": domain.items.height,
            "events": domain.events.height,
            "rows": domain.rows.height,
            "tied_users": int(domain.users[TIED].sum()),
            "blank_timestamps": blank.height,
            "users_in_file_order": blank[USER_ID].n_unique(),
        },
        "split": _split_facts(domain),
        "future": future_counts(domain),
        "read": {"interactions": raw.interactions.height, "items": raw.items.height, "rejected": raw.rejects.by_reason()},
        "dropped_events": dropped,
    }


def _split_facts(domain: Domain) -> dict[str, Any]:
    if domain.cuts is None:
        return {"kind": LEAVE_ONE_OUT}
    events = dict(domain.events[SPLIT].value_counts().sort(SPLIT).iter_rows())
    return {"kind": TIME, "valid_from": domain.cuts.valid, "test_from": domain.cuts.test, "events": events}
