"""Describe a data set in numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from recmerge.data.dataset import Domain
from recmerge.data.leakage import future_counts, shared_users
from recmerge.data.splitting import N_EVENTS, TIED
from recmerge.data.training_set import TrainingSet
from recmerge.names import CANDIDATES, DOMAIN, ITEM_ID, POSITION, SPLIT, TEST, TIMESTAMP, TITLE, USER_ID, VALID

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_SHOWN = 0.99  # of a distribution: a curve ends where this share of it is left of its end
_LORENZ_POINTS = 100
CountTokens = Callable[[list[str]], list[int]]  # texts -> how many tokens a tokenizer makes of each


def describe_domain(domain: Domain, count_tokens: CountTokens | None = None) -> dict[str, Any]:
    """Describe one domain.

    Args:
        domain: Any profile.
        count_tokens: Counts the tokens of titles; None: they are left out.

    Returns:
        Counts; `split`, and the seconds of the cuts of a time split; `density` (events per user and item); time range in seconds;
        `tied_share` of test users whose target shares its time with an event beside it, `tied_events_share` of events at the time of the
        event before, `one_time_share` of users whose events all have one time; `top_decile_share` (the events of the most popular tenth of
        items) and `gini` of the events of items, 0 to 1; percentiles of events per user, history lengths of the test, events per item,
        and characters, words (between white space) and tokens per title; `future`, see `future_counts`.
    """
    per_item = domain.events.group_by(ITEM_ID).len()["len"].sort(descending=True)
    n_users, n_items, n_events = domain.users.height, domain.items.height, domain.events.height
    times = domain.events[TIMESTAMP]
    per_split = dict(domain.candidates.group_by(SPLIT).len().iter_rows())
    return {
        "profile": domain.profile,
        "split": "leave_one_out" if domain.cuts is None else "time",
        **({} if domain.cuts is None else {"valid_from_timestamp": domain.cuts.valid, "test_from_timestamp": domain.cuts.test}),
        "users": n_users,
        "items": n_items,
        "events": n_events,
        "rows": domain.rows.height,
        "valid_users": per_split.get(VALID, 0),
        "test_users": per_split.get(TEST, 0),
        "candidates": int(domain.candidates[CANDIDATES].list.len().max() or 0),  # type: ignore[arg-type]
        "density": round(n_events / (n_users * n_items), 6),
        "tied_share": round(float(domain.users[TIED].sum()) / max(per_split.get(TEST, 0), 1), 4),
        **_ties(domain),
        "blank_timestamps": times.null_count(),
        "first_timestamp": times.min(),
        "last_timestamp": times.max(),
        "top_decile_share": round(float(per_item[: max(1, n_items // 10)].sum()) / n_events, 4),
        "gini": _gini(per_item),
        "equal_titles": n_items - domain.items[TITLE].n_unique(),
        "events_per_user": percentiles(domain.users[N_EVENTS]),
        "test_history": percentiles(_test_histories(domain)),
        "events_per_item": percentiles(per_item),
        "title_chars": percentiles(domain.items[TITLE].str.len_chars()),
        "title_words": percentiles(_title_words(domain)),
        **({} if count_tokens is None else {"title_tokens": percentiles(_title_tokens(domain, count_tokens))}),
        "future": future_counts(domain),
    }


def curves(domain: Domain, count_tokens: CountTokens | None = None) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Return what a page draws of one domain.

    Args:
        domain: Any profile.
        count_tokens: Counts the tokens of titles; None: they are left out.

    Returns:
        (x, y) of `test_history` (length n; share of test users with a history of n events or more), `popularity` (share of items, the most
        bought first; share of all events that these have) and `title_words` (words n; share of titles of n words), `title_tokens` likewise.
        Lengths, words and tokens end at the 99th percentile.
    """
    lengths = _test_histories(domain)
    per_item = domain.events.group_by(ITEM_ID).len()["len"].sort(descending=True).cum_sum().to_list()
    places = sorted({round(i * len(per_item) / _LORENZ_POINTS) for i in range(_LORENZ_POINTS + 1)})
    at_least = list(range(1, _last_shown(lengths) + 1))
    return {
        "test_history": (at_least, [float((lengths >= n).mean() or 0.0) for n in at_least]),  # type: ignore[arg-type]
        "popularity": ([i / len(per_item) for i in places], [per_item[i - 1] / per_item[-1] if i else 0.0 for i in places]),
        "title_words": _shares(_title_words(domain)),
        **({} if count_tokens is None else {"title_tokens": _shares(_title_tokens(domain, count_tokens))}),
    }


def _last_shown(values: pl.Series) -> int:
    return int(values.quantile(_SHOWN, interpolation="nearest") or 0)


def _shares(values: pl.Series) -> tuple[list[int], list[float]]:
    counted = dict(values.value_counts().iter_rows())
    up_to = list(range(_last_shown(values) + 1))
    return up_to, [counted.get(n, 0) / len(values) for n in up_to]


def _test_histories(domain: Domain) -> pl.Series:
    return domain.events.filter(pl.col(SPLIT) == TEST)[POSITION]


def _title_words(domain: Domain) -> pl.Series:
    return domain.items[TITLE].str.count_matches(r"\S+").cast(pl.Int64)


def _title_tokens(domain: Domain, count_tokens: CountTokens) -> pl.Series:
    return pl.Series(count_tokens(domain.items[TITLE].to_list()), dtype=pl.Int64)


def _ties(domain: Domain) -> dict[str, float]:
    time = pl.col(TIMESTAMP)
    tied = domain.events.select((time == time.shift(1)).over(USER_ID).fill_null(False))[TIMESTAMP]
    at_once = domain.events.group_by(USER_ID).agg((time.min() == time.max()) & ~time.is_null().any())[TIMESTAMP].fill_null(False)
    return {"tied_events_share": round(float(tied.mean() or 0.0), 4), "one_time_share": round(float(at_once.mean() or 0.0), 4)}  # type: ignore[arg-type]


def _gini(per_item: pl.Series) -> float:
    """Return how unequal the counts are, 0 to 1; `per_item` is in descending order.

    Source: Gini (1912), the mean absolute difference over twice the mean, in its form for sorted values.
    """
    n = len(per_item)
    weighted = float((per_item.sort() * pl.Series(range(1, n + 1))).sum())
    return round(2 * weighted / (n * float(per_item.sum())) - (n + 1) / n, 4)


def describe_set(training_set: TrainingSet, count_tokens: CountTokens | None = None) -> dict[str, Any]:
    """Describe a domain or mixed set.

    Args:
        training_set: With its domains.
        count_tokens: Counts the tokens of titles; None: they are left out.

    Returns:
        `rows` in all, `rows_by_domain`, `domains` with `describe_domain` of each, and `shared_users`, see there.
    """
    by_domain = dict(sorted(training_set.rows[DOMAIN].value_counts().iter_rows()))
    domains = {name: describe_domain(domain, count_tokens) for name, domain in sorted(training_set.domains.items())}
    shared = shared_users(training_set.domains)
    return {"name": training_set.name, "rows": training_set.rows.height, "rows_by_domain": by_domain, "domains": domains, "shared_users": shared}


def percentiles(values: pl.Series) -> dict[str, float]:
    """Return the mean and the percentiles of numbers, by nearest rank.

    Args:
        values: At least one number.

    Returns:
        `mean`, `p0`, `p5` ... `p100`.
    """
    found = {f"p{p}": float(values.quantile(p / 100, interpolation="nearest") or 0.0) for p in PERCENTILES}
    return {"mean": round(float(values.mean() or 0.0), 3), **found}  # type: ignore[arg-type]
