from collections.abc import Callable

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.sources import RawTables
from recmerge.data.statistics import describe_domain, percentiles


def test_percentiles_by_nearest_rank() -> None:
    found = percentiles(pl.Series(range(1, 102)))
    assert found == {"mean": 51, "p0": 1, "p5": 6, "p25": 26, "p50": 51, "p75": 76, "p95": 96, "p99": 100, "p100": 101}


def test_one_number_is_every_percentile() -> None:
    assert set(percentiles(pl.Series([7])).values()) == {7.0}


def test_a_domain_by_hand(grid: Callable[..., RawTables]) -> None:
    found = describe_domain(build_clean("d", grid(n_users=20), n_candidates=10)[0])
    assert (found["users"], found["items"], found["events"], found["rows"], found["candidates"]) == (20, 20, 120, 60, 10)
    assert found["density"] == pytest.approx(120 / 400)
    assert found["top_decile_share"] == pytest.approx(2 * 6 / 120)  # every item has six events
    assert found["events_per_user"]["p50"] == found["events_per_item"]["p100"] == 6
    assert (found["title_chars"]["p0"], found["title_chars"]["p100"]) == (7, 8)  # "Title 0" to "Title 19"
    assert (found["first_timestamp"], found["last_timestamp"], found["blank_timestamps"]) == (0, 5, 0)
    assert (found["tied_share"], found["equal_titles"]) == (0, 0)
