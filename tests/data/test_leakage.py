from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.dataset import Domain
from recmerge.data.leakage import future_counts, held_out_elsewhere, shared_users, trained_after_test
from recmerge.data.sources import SOURCES, RawTables
from recmerge.data.splitting import Cuts, TimeSplit

Build = Callable[..., Domain]


@pytest.fixture
def build(raw_tables: Callable[..., RawTables]) -> Build:
    """Build a domain from each user's times: their events are of items i0, i1, ... in that order."""

    def make(times: dict[str, tuple[int | None, ...]], prefix: str = "i", **settings: object) -> Domain:
        events = [(user, f"{prefix}{n}", t) for user, row in times.items() for n, t in enumerate(row)]
        titles = {f"{prefix}{n}": f"{prefix} {n}" for n in range(21)}
        bystanders = [(f"z{n // 3}", f"{prefix}{n}", 1) for n in range(21)]  # who bought all there is at 1, so that there is a catalogue
        return build_clean("d", raw_tables(events + bystanders, titles), k=1, n_candidates=2, **settings)[0]

    return make


def without_bystanders(domain: Domain) -> Domain:
    own = ~pl.col("user_id").str.starts_with("z")
    return replace(domain, events=domain.events.filter(own), users=domain.users.filter(own))


def test_what_leave_one_out_lets_through_by_hand(build: Build) -> None:
    # training events: a at 1 and 2, b at 5 and 6, c at 11; tests: a at 4, b at 8, c at 13
    domain = without_bystanders(build({"a": (1, 2, 3, 4), "b": (5, 6, 7, 8), "c": (11, 12, 13)}))
    assert future_counts(domain) == {
        "test_users": 3,
        "test_users_training_after_tests": 2,  # b's 5 is later than a's 4, c's 11 than 4 and 8; a's own test does not count for a
        "test_users_tested_before_training": 2,  # a's 4 is earlier than 5, b's 8 than 11; of c nothing is
        "train_share_after_median_test": 0.2,  # the median test is at 8, and one of five training events is later
    }


def test_equal_times_are_not_later_and_unknown_times_are_nothing(build: Build) -> None:
    domain = without_bystanders(build({"a": (1, 2, 3, 4), "b": (4, 4, 4, 4), "c": (9, None, 7, 8)}))
    assert future_counts(domain) == {  # of c, in file order, training events at 9 and unknown, the test at 8
        "test_users": 3,
        "test_users_training_after_tests": 1,
        "test_users_tested_before_training": 2,
        "train_share_after_median_test": 0.2,  # the median of 4, 4 and 8; 9 is later, of five known times
    }


def test_no_times_at_all(build: Build) -> None:
    counts = future_counts(without_bystanders(build({"a": (None, None, None), "b": (None, None, None)})))
    assert counts == {"test_users": 2, "test_users_training_after_tests": 0, "test_users_tested_before_training": 0, "train_share_after_median_test": 0}


def test_a_time_split_lets_nothing_through(build: Build) -> None:
    domain = build({f"u{u}": tuple(range(u, u + 20, 2)) for u in range(12)}, time_split=TimeSplit(cuts=Cuts(12, 20)))
    counts = future_counts(domain)
    assert counts.pop("test_users") == 10  # u0 and u1 end at 18 and 19
    assert set(counts.values()) == {0}


def test_users_of_two_domains_in_either_direction(build: Build) -> None:
    # u and v are in both; after u's test in a at 4 comes training in b; after v's test in b at 3 training in a
    a = without_bystanders(build({"u": (1, 2, 3, 4), "v": (8, 9, 10, 11), "w": (1, 2, 3)}))
    b = without_bystanders(build({"u": (4, 5, 6, 7), "v": (1, 1, 2, 3), "x": (1, 2, 3)}, "j"))
    assert trained_after_test(a, b)["user_id"].to_list() == ["u"]
    assert trained_after_test(b, a)["user_id"].to_list() == ["v"]
    assert shared_users({"b": b, "a": a}) == {"users_shared_a_b": 2, "users_trained_in_b_after_test_in_a": 1, "users_trained_in_a_after_test_in_b": 1}
    assert shared_users({"a": a}) == {}


def test_what_another_domain_holds_out(build: Build) -> None:
    a, b = without_bystanders(build({"u": (1, 2, 3, 4)})), without_bystanders(build({"v": (1, 2, 3)}))
    domains = {"a": a, "b": b}
    assert held_out_elsewhere("a", domains).rows() == [("v", "i1"), ("v", "i2")]
    assert held_out_elsewhere("b", domains).rows() == [("u", "i2"), ("u", "i3")]
    assert held_out_elsewhere("a", {"a": a}).rows() == []


def test_the_counts_of_real_sports_and_beauty(shared: Path) -> None:
    domains = {}
    columns = {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp", "title": "title", "brand": None, "category": None}
    for name in ("sports", "beauty"):
        folder = shared / "data" / "amazon2014" / name
        raw = SOURCES["table"].read({"interactions": folder / "interactions.csv.gz", "items": folder / "items.csv.gz"}, columns)
        domains[name] = build_clean(name, raw, max_rows=10)[0]
    # 345: training events in Beauty strictly later than the test event in Sports, by days; 216 the other way round
    assert shared_users(domains) == {
        "users_shared_beauty_sports": 1625,
        "users_trained_in_sports_after_test_in_beauty": 216,
        "users_trained_in_beauty_after_test_in_sports": 345,
    }
    assert trained_after_test(domains["sports"], domains["beauty"]).height == 345
    assert future_counts(domains["sports"]) == {
        "test_users": 35_598,
        "test_users_training_after_tests": 35_262,
        "test_users_tested_before_training": 35_128,
        "train_share_after_median_test": 0.1512,
    }
