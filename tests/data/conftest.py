"""Small hand-made tables for the tests of recmerge.data."""

from collections.abc import Callable, Iterable

import polars as pl
import pytest

from recmerge.data.sources import RawTables
from recmerge.data.sources.raw import Rejects

Event = tuple[str, str, int | None]
_EVENT_TYPES = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
_ITEM_TYPES = {"item_id": pl.String, "title": pl.String, "brand": pl.String, "category": pl.String}


def event_frame(events: Iterable[Event]) -> pl.DataFrame:
    return pl.DataFrame(list(events), schema=_EVENT_TYPES, orient="row")


def make_raw(events: Iterable[Event], titles: dict[str, str | None]) -> RawTables:
    interactions = event_frame(events)
    items = pl.DataFrame([(i, t, None, None) for i, t in sorted(titles.items())], schema=_ITEM_TYPES, orient="row")
    return RawTables(interactions, items, Rejects(), interactions.height + items.height)


@pytest.fixture
def events_of() -> Callable[[Iterable[Event]], pl.DataFrame]:
    """Make an event frame from (user, item, time)."""
    return event_frame


@pytest.fixture
def raw_tables() -> Callable[[Iterable[Event], dict[str, str | None]], RawTables]:
    """Make raw tables from (user, item, time) and titles by item."""
    return make_raw


@pytest.fixture
def grid() -> Callable[..., RawTables]:
    """Make users u00 .. of whom user u bought items u, u+1 ... (modulo the catalogue) at times 0, 1, 2 ..."""

    def make(n_users: int = 12, n_items: int = 20, n_events: int = 6) -> RawTables:
        events = [(f"u{u:02d}", f"i{(u + t) % n_items:02d}", t) for u in range(n_users) for t in range(n_events)]
        return make_raw(events, {f"i{i:02d}": f"Title {i}" for i in range(n_items)})

    return make
