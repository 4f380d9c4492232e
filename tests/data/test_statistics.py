from collections.abc import Callable

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.sources import RawTables
from recmerge.data.splitting import Cuts, TimeSplit
from recmerge.data.statistics import curves, describe_domain, percentiles


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
    assert (found["split"], found["valid_users"], found["test_users"]) == ("leave_one_out", 20, 20)
    assert found["test_history"]["p0"] == found["test_history"]["p100"] == 5
    assert found["title_words"]["mean"] == 2
    assert (found["gini"], found["tied_events_share"], found["one_time_share"]) == (0, 0, 0)  # items alike, times all different
    assert found["future"]["test_users"] == 20


@pytest.fixture
def uneven(raw_tables: Callable[..., RawTables]) -> RawTables:
    """Twelve users of three events each: everybody buys `hit` first, then two of eight others."""
    events = [(f"u{u:02d}", item, t) for u in range(12) for t, item in ((0, "hit"), (u % 3, f"i{u % 8}"), (u % 3, f"j{u % 8}"))]
    titles = {"hit": "one"} | {f"{p}{n}": f"two  {n}" if p == "i" else f"three words\u00a0{n}" for p in "ij" for n in range(8)}
    return raw_tables(events, titles)


def test_ties_and_inequality_by_hand(uneven: RawTables) -> None:
    domain, _ = build_clean("d", uneven, k=1, n_candidates=2)
    found = describe_domain(domain)
    # users with u % 3 == 0 do everything at 0; all have their last two events at one time
    assert (found["tied_share"], found["one_time_share"]) == (1, pytest.approx(4 / 12, abs=1e-4))
    assert found["tied_events_share"] == pytest.approx((12 + 4) / 36, abs=1e-4)  # the last of each, and the second of four users
    # counts: hit 12; of i and j each four items 2 and four 1: 17 items, 36 events
    counts = sorted([12] + [2] * 8 + [1] * 8)
    gaps = sum(abs(x - y) for x in counts for y in counts)
    assert found["gini"] == pytest.approx(gaps / (2 * 17 * 36), abs=1e-4)
    assert found["title_words"]["p0"] == 1
    assert found["title_words"]["p100"] == 3


def test_curves_by_hand(uneven: RawTables) -> None:
    drawn = curves(build_clean("d", uneven, k=1, n_candidates=2)[0])
    assert drawn["test_history"] == ([1, 2], [1.0, 1.0])
    shares, held = drawn["popularity"]
    assert (shares[0], held[0], shares[-1], held[-1]) == (0, 0, 1, 1)
    assert held[1] == pytest.approx(12 / 36)  # one of 17 items
    assert held[9] == pytest.approx((12 + 8 * 2) / 36)
    words, of_titles = drawn["title_words"]
    assert words == [0, 1, 2, 3]
    assert of_titles == pytest.approx([0, 1 / 17, 8 / 17, 8 / 17])
    assert "title_tokens" not in drawn


def test_tokens_are_those_that_the_tokenizer_counts(uneven: RawTables) -> None:
    domain = build_clean("d", uneven, k=1, n_candidates=2)[0]
    assert curves(domain, lambda texts: [len(t) for t in texts])["title_tokens"][0][-1] == max(domain.items["title"].str.len_chars())
    found = describe_domain(domain, lambda texts: [len(t) for t in texts])
    assert found["title_tokens"] == found["title_chars"]


def test_a_time_split_describes_those_who_are_asked(grid: Callable[..., RawTables]) -> None:
    raw = grid(n_users=20)
    found = describe_domain(build_clean("d", raw, n_candidates=5, time_split=TimeSplit(cuts=Cuts(3, 5)))[0])
    assert (found["split"], found["valid_from_timestamp"], found["test_from_timestamp"]) == ("time", 3, 5)
    assert (found["valid_users"], found["test_users"]) == (20, 20)
    assert found["test_history"]["p0"] == 5
    assert found["future"]["test_users_tested_before_training"] == 0
