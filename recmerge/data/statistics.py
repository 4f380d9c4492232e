"""Describe a data set in numbers."""

from typing import Any

import polars as pl

from recmerge.data.dataset import Domain
from recmerge.data.splitting import N_EVENTS, TIED
from recmerge.data.training_set import TrainingSet
from recmerge.names import CANDIDATES, DOMAIN, ITEM_ID, TIMESTAMP, TITLE

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)


def describe_domain(domain: Domain) -> dict[str, Any]:
    """Describe one domain.

    Args:
        domain: Any profile.

    Returns:
        Counts; `density` (events per user and item); `tied_share` of users; time range in seconds; percentiles of events per user, events
        per item and characters per title; `top_decile_share` (the events of the most popular tenth of items, 0 to 1).
    """
    per_item = domain.events.group_by(ITEM_ID).len()["len"].sort(descending=True)
    n_users, n_items, n_events = domain.users.height, domain.items.height, domain.events.height
    times = domain.events[TIMESTAMP]
    return {
        "profile": domain.profile,
        "users": n_users,
        "items": n_items,
        "events": n_events,
        "rows": domain.rows.height,
        "candidates": int(domain.candidates[CANDIDATES].list.len().max() or 0),  # type: ignore[arg-type]
        "density": round(n_events / (n_users * n_items), 6),
        "tied_share": round(float(domain.users[TIED].mean() or 0.0), 4),  # type: ignore[arg-type]
        "blank_timestamps": times.null_count(),
        "first_timestamp": times.min(),
        "last_timestamp": times.max(),
        "top_decile_share": round(float(per_item[: max(1, n_items // 10)].sum()) / n_events, 4),
        "events_per_user": percentiles(domain.users[N_EVENTS]),
        "events_per_item": percentiles(per_item),
        "title_chars": percentiles(domain.items[TITLE].str.len_chars()),
        "equal_titles": n_items - domain.items[TITLE].n_unique(),
    }


def describe_set(training_set: TrainingSet) -> dict[str, Any]:
    """Describe a domain or mixed set.

    Args:
        training_set: With its domains.

    Returns:
        `rows` in all, `rows_by_domain`, and `domains` with `describe_domain` of each.
    """
    by_domain = dict(sorted(training_set.rows[DOMAIN].value_counts().iter_rows()))
    domains = {name: describe_domain(domain) for name, domain in sorted(training_set.domains.items())}
    return {"name": training_set.name, "rows": training_set.rows.height, "rows_by_domain": by_domain, "domains": domains}


def percentiles(values: pl.Series) -> dict[str, float]:
    """Return the mean and the percentiles of numbers, by nearest rank.

    Args:
        values: At least one number.

    Returns:
        `mean`, `p0`, `p5` ... `p100`.
    """
    found = {f"p{p}": float(values.quantile(p / 100, interpolation="nearest") or 0.0) for p in PERCENTILES}
    return {"mean": round(float(values.mean() or 0.0), 3), **found}  # type: ignore[arg-type]
