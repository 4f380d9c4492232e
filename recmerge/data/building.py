"""From raw tables to a domain: filter, order, split, draw candidates and training rows."""

from typing import Any

import numpy as np
import polars as pl

from recmerge.data.candidates import Catalogue, clean_catalogue, published_catalogue, row_keys, with_answers, with_candidates
from recmerge.data.dataset import Domain
from recmerge.data.draws import Keys, splitmix64, text_key
from recmerge.data.filtering import MIN_EVENTS, drop_repeats, drop_untitled, k_core, sample_users
from recmerge.data.sources.raw import RawTables
from recmerge.data.splitting import TIED, order_events, split_events, user_table
from recmerge.data.titles import clean_titles
from recmerge.errors import DataError
from recmerge.names import BRAND, CANDIDATES, CATEGORY, ITEM_ID, POSITION, SPLIT, TARGET, TEST, TIMESTAMP, TITLE, TRAIN, USER_ID, VALID

CLEAN, PUBLISHED = "clean", "published"
PUBLISHED_ROWS = 30_000
_MISSING_TITLE = "nan"  # what the published code's prompts say where an item has no title
_COLUMNS = (USER_ID, POSITION, TARGET, CANDIDATES)


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

    Returns:
        The domain, and counts for the manifest.

    Raises:
        DataError: A filter leaves nothing, or there are too few items for the candidates.
    """
    dropped: dict[str, int] = {}
    cleaned = clean_titles(raw.items[TITLE].to_list(), max_title_chars)
    items = raw.items.with_columns(pl.Series(TITLE, cleaned.titles, dtype=pl.String))
    events = drop_untitled(raw.interactions, items, dropped)
    events = drop_repeats(order_events(events, tie_break, seed), dropped)
    events = k_core(sample_users(events, n_users, seed, dropped), k, dropped)
    events = split_events(events)
    items = _used_items(items, events)
    catalogue = clean_catalogue(items, events)
    predicted = events.filter((pl.col(SPLIT) == TRAIN) & (pl.col(POSITION) > 0))
    rows = _rows(name, TRAIN, predicted, catalogue, n_candidates, seed, max_rows)
    domain = _domain(name, CLEAN, items, events, rows, catalogue, n_candidates, seed)
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
    domain = _domain(name, PUBLISHED, items, events, rows, catalogue, n_candidates, seed)
    facts = _facts(domain, raw, dropped)
    facts["titles"] = {"decoded": 0, "cut": 0, "missing": missing}
    facts["counts"]["validation_rows"] = validation.height
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


def _domain(
    name: str, profile: str, items: pl.DataFrame, events: pl.DataFrame, rows: pl.DataFrame, catalogue: Catalogue, n_candidates: int, seed: int
) -> Domain:
    asked = []
    for split in (VALID, TEST):
        questions = events.filter(pl.col(SPLIT) == split).select(USER_ID, POSITION, pl.col(ITEM_ID).alias(TARGET))
        drawn = with_candidates(questions, row_keys(name, split, questions, seed), catalogue, n_candidates)
        asked.append(drawn.select(pl.lit(split).alias(SPLIT), USER_ID, TARGET, CANDIDATES))
    return Domain(name, profile, items, events, user_table(events), rows, pl.concat(asked))


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
        "read": {"interactions": raw.interactions.height, "items": raw.items.height, "rejected": raw.rejects.by_reason()},
        "dropped_events": dropped,
    }
