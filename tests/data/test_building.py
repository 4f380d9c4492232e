from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recmerge.data.building import build_clean, build_published
from recmerge.data.checks import check_set
from recmerge.data.dataset import DOMAIN_FILES, Domain, write_domain
from recmerge.data.sources import RawTables
from recmerge.data.sources.raw import Rejects
from recmerge.data.training_set import TrainingSet
from recmerge.errors import DataError


def as_set(domain: Domain) -> TrainingSet:
    return TrainingSet(domain.name, {domain.name: domain}, domain.rows.select(pl.lit(domain.name).alias("domain"), pl.all()))


def shuffled(raw: RawTables, seed: int) -> RawTables:
    return RawTables(raw.interactions.sample(fraction=1, shuffle=True, seed=seed), raw.items, Rejects(), raw.n_lines)


def file_bytes(domain: Domain, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    write_domain(folder, domain)
    return {name: (folder / name).read_bytes() for name in DOMAIN_FILES}


def test_a_built_domain_by_hand(grid: Callable[..., RawTables]) -> None:
    domain, facts = build_clean("d", grid(n_users=20), k=5, n_candidates=10)
    assert domain.sequences["u03"] == ("i03", "i04", "i05", "i06", "i07", "i08")
    # six events: positions 1, 2 and 3 are predicted, 4 is validation, 5 the test
    assert sorted(domain.rows.filter(pl.col("user_id") == "u03").select("position", "target").rows()) == [(1, "i04"), (2, "i05"), (3, "i06")]
    asked = domain.candidates.filter(pl.col("user_id") == "u03").select("split", "target").rows()
    assert asked == [("valid", "i07"), ("test", "i08")]
    assert facts["counts"] == {"users": 20, "items": 20, "events": 120, "rows": 60, "tied_users": 0, "blank_timestamps": 0, "users_in_file_order": 0}
    assert facts["dropped_events"] == {"unknown_item": 0, "no_title": 0, "repeated": 0, "k_core": 0}
    assert check_set(as_set(domain)).findings == []


@pytest.mark.parametrize("tie_break", ["item_id", "hash"])
def test_the_order_of_the_file_does_not_matter(grid: Callable[..., RawTables], tmp_path: Path, tie_break: str) -> None:
    raw = grid(n_users=20)
    flat = raw.interactions.with_columns(pl.col("timestamp") // 3)  # ties
    repeated = RawTables(pl.concat([flat, flat.head(7)]), raw.items, Rejects(), raw.n_lines)
    one = file_bytes(build_clean("d", shuffled(repeated, 1), n_candidates=10, tie_break=tie_break)[0], tmp_path / "one")
    two = file_bytes(build_clean("d", shuffled(repeated, 2), n_candidates=10, tie_break=tie_break)[0], tmp_path / "two")
    assert one == two


def test_the_seed_changes_candidates_and_order_but_not_the_split(grid: Callable[..., RawTables]) -> None:
    one, two = (build_clean("d", grid(n_users=20), n_candidates=10, seed=s)[0] for s in (1, 2))
    assert one.events.equals(two.events)
    assert not one.candidates.equals(two.candidates)
    assert one.rows.select("user_id", "position").rows() != two.rows.select("user_id", "position").rows()


def test_max_rows_takes_the_first_of_the_same_order(grid: Callable[..., RawTables]) -> None:
    every, few = (build_clean("d", grid(n_users=20), n_candidates=10, max_rows=n)[0] for n in (None, 7))
    assert few.rows.equals(every.rows.head(7))
    assert few.candidates.equals(every.candidates)


def test_rows_are_not_in_user_order(grid: Callable[..., RawTables]) -> None:
    users = build_clean("d", grid(n_users=20), n_candidates=10)[0].rows["user_id"].to_list()
    assert users != sorted(users)


def test_drops_are_counted_by_reason(raw_tables: Callable[..., RawTables]) -> None:
    base = [(f"u{u}", f"i{(u + t) % 12:02d}", t) for u in range(12) for t in range(5)]
    extra = [("u0", "i00", 50), ("u0", "lost", 60), ("u1", "bare", 60), ("stray", "i00", 1)]
    titles = {f"i{i:02d}": f"T {i}" for i in range(12)} | {"bare": " &nbsp; ", "unused": "U &amp; V"}
    domain, facts = build_clean("d", raw_tables(base + extra, titles), n_candidates=5)
    assert facts["dropped_events"] == {"unknown_item": 1, "no_title": 1, "repeated": 1, "k_core": 1}
    assert facts["titles"] == {"decoded": 2, "cut": 0, "missing": 1}
    assert domain.events.height == 60
    assert "unused" not in domain.items["item_id"].to_list()


def test_blank_times_keep_the_order_of_the_file_and_are_counted(raw_tables: Callable[..., RawTables]) -> None:
    events = [(f"u{u}", f"i{(u + t) % 12:02d}", t) for u in range(12) for t in range(5)]
    events = [e for e in events if e[0] != "u0"] + [("u0", f"i{i:02d}", None if i == 2 else 9 - i) for i in (4, 0, 2, 1, 3)]
    domain, facts = build_clean("d", raw_tables(events, {f"i{i:02d}": f"T {i}" for i in range(12)}), n_candidates=5)
    assert domain.sequences["u0"] == ("i04", "i00", "i02", "i01", "i03")
    assert (facts["counts"]["blank_timestamps"], facts["counts"]["users_in_file_order"]) == (1, 1)


def test_what_emptied_the_data_is_named(grid: Callable[..., RawTables]) -> None:
    with pytest.raises(DataError, match="7-core is empty: 72 events"):
        build_clean("d", grid(), k=7, n_candidates=5)
    with pytest.raises(DataError, match="n_candidates 30 needs 29 negatives"):
        build_clean("d", grid(n_users=20), n_candidates=30)


def test_users_are_sampled_before_the_core(grid: Callable[..., RawTables]) -> None:
    domain, facts = build_clean("d", grid(n_users=20), k=1, n_users=4, n_candidates=3)
    assert domain.users.height == 4
    assert facts["dropped_events"]["not_sampled"] == 16 * 6


@pytest.fixture
def published(raw_tables: Callable[..., RawTables]) -> tuple[Domain, dict[str, Any], RawTables]:
    events = [(f"u{u:02d}", f"i{(u * 7 + t * 3) % 40:02d}", t // 2) for u in range(40) for t in range(6)]
    events += [("u00", "i00", 9), ("u01", "lost", 9)]
    titles: dict[str, str | None] = {f"i{i:02d}": f"T &amp; {i}" for i in range(40)} | {"i05": None}
    raw = raw_tables(events, titles)
    return *build_published("p", raw, n_candidates=30, max_rows=50), raw


def test_published_keeps_what_clean_drops(published: tuple[Domain, dict[str, Any], RawTables]) -> None:
    domain, facts, raw = published
    assert domain.profile == "published"
    assert domain.events.height == raw.interactions.height == 242
    assert domain.titles["i05"] == "nan"
    assert domain.titles["lost"] == "nan"
    assert domain.titles["i06"] == "T &amp; 6"
    assert facts["titles"]["missing"] == 2
    assert domain.sequences["u00"].count("i00") == 2


def test_published_rows_are_all_validation_rows_and_a_sample(published: tuple[Domain, dict[str, Any], RawTables]) -> None:
    domain, facts, _ = published
    events = domain.events.select("user_id", "position", "split")
    splits = domain.rows.join(events, on=["user_id", "position"])["split"].value_counts().rows()
    assert dict(splits) == {"train": 50, "valid": 40}
    assert facts["counts"]["validation_rows"] == 40
    first = domain.rows.head(45).join(events, on=["user_id", "position"])["split"]
    assert 5 < (first == "valid").sum() < 40  # shuffled together


def test_published_validation_rows_ask_what_validation_asks(published: tuple[Domain, dict[str, Any], RawTables]) -> None:
    domain, _, _ = published
    valid = domain.candidates.filter(pl.col("split") == "valid").select("user_id", "target", asked="candidates")
    both = domain.rows.join(domain.events.filter(pl.col("split") == "valid").select("user_id", "position"), on=["user_id", "position"]).join(
        valid, on="user_id"
    )
    assert both.height == 40
    assert both["candidates"].to_list() == both["asked"].to_list()


def test_published_answers(published: tuple[Domain, dict[str, Any], RawTables]) -> None:
    domain, _, _ = published
    for target, listed, answer in domain.rows.select("target", "candidates", "answer").iter_rows():
        assert len(listed) == 30
        assert answer[0] == target
        assert len(answer) == 5
        assert set(answer) <= set(listed)


def test_published_orders_ties_by_the_file(raw_tables: Callable[..., RawTables]) -> None:
    raw = raw_tables([("u", "c", 2), ("u", "b", 2), ("u", "a", 1), ("u", "a", 2)], {i: i for i in "abcdefgh"})
    domain, _ = build_published("p", raw, n_candidates=2)
    assert domain.sequences["u"] == ("a", "c", "b", "a")


def test_published_needs_users_of_three_events(raw_tables: Callable[..., RawTables]) -> None:
    with pytest.raises(DataError, match="no user has 3 events"):
        build_published("p", raw_tables([("u", "a", 1), ("u", "b", 2)], {"a": "A", "b": "B"}))


def test_odd_titles_round_trip(raw_tables: Callable[..., RawTables], tmp_path: Path) -> None:
    from recmerge.data.dataset import read_domain

    odd = ["Cafe\u0301", "😀 👩\u200d🚀", "שלום", "a\u200bb", "x" * 10_000, "[bold]x[/red] <|im_start|>"]
    wanted = ["Caf\u00e9", "😀 👩\u200d🚀", "שלום", "ab", "x" * 511 + "…", "[bold]x[/red] <|im_start|>"]
    events = [(f"u{u}", f"i{(u + t) % 6}", t) for u in range(6) for t in range(5)]
    domain, _ = build_clean("d", raw_tables(events, {f"i{i}": t for i, t in enumerate(odd)}), n_candidates=2)
    write_domain(tmp_path, domain)
    assert [read_domain(tmp_path).titles[f"i{i}"] for i in range(6)] == wanted
