from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.dataset import Domain
from recmerge.data.mixing import mix_rows
from recmerge.data.sources import RawTables
from recmerge.data.splitting import Cuts
from recmerge.errors import DataError, UsageError


@pytest.fixture
def pair(grid: Callable[..., RawTables]) -> tuple[Domain, Domain]:
    other = grid(n_users=30, n_events=5)
    strangers = replace(other, interactions=other.interactions.with_columns(pl.col("user_id").str.replace("u", "v")))
    return build_clean("a", grid(n_users=20), n_candidates=10)[0], build_clean("b", strangers, n_candidates=10)[0]


def test_a_mix_holds_the_first_rows_of_each_domain(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    mixed = mix_rows([a, b], {"a": 25, "b": 1000}, 42)
    assert dict(mixed["domain"].value_counts().rows()) == {"a": 25, "b": 60}
    kept = mixed.filter(mixed["domain"] == "a").drop("domain")
    assert sorted(kept.rows()) == sorted(a.rows.head(25).rows())


def test_a_mix_is_symmetric_and_seeded(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    caps = {"a": 100, "b": 100}
    assert mix_rows([a, b], caps, 42).equals(mix_rows([b, a], caps, 42))
    assert not mix_rows([a, b], caps, 42).equals(mix_rows([a, b], caps, 43))


def test_domains_are_interleaved(pair: tuple[Domain, Domain]) -> None:
    names = mix_rows(list(pair), {"a": 100, "b": 100}, 42)["domain"].to_list()
    assert 10 < names[:60].count("a") < 50


def test_one_domain_twice_or_two_profiles_are_refused(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    with pytest.raises(UsageError, match="different domains"):
        mix_rows([a, a], {"a": 1}, 42)
    with pytest.raises(DataError, match="a is clean, b is published"):
        mix_rows([a, replace(b, profile="published")], {"a": 1, "b": 1}, 42)


def test_domains_of_other_cuts_are_refused(pair: tuple[Domain, Domain]) -> None:
    a, b = (replace(d, cuts=Cuts(86_400, day * 86_400)) for d, day in zip(pair, (5, 4), strict=True))
    with pytest.raises(DataError, match="a is split at 1970-01-02 and 1970-01-06, b is split at 1970-01-02 and 1970-01-05") as caught:
        mix_rows([a, b], {"a": 1, "b": 1}, 42)
    assert "--split time --set valid_from=1970-01-02 --set test_from=1970-01-05" in caught.value.fix
    odd = replace(a, cuts=Cuts(86_401, 90_000))
    with pytest.raises(DataError, match="b is split by leave_one_out") as caught:
        mix_rows([odd, pair[1]], {"a": 1, "b": 1}, 42)
    assert "valid_from=86401 --set test_from=90000" in caught.value.fix  # no date would be as exact
    assert mix_rows([a, replace(b, cuts=a.cuts)], {"a": 5, "b": 5}, 42).height == 10


def held_out_by_b(pair: tuple[Domain, Domain]) -> tuple[Domain, Domain, list[tuple[str, str]]]:
    """Make three training rows of a the test purchases of b."""
    a, b = pair
    stolen = a.rows.head(3).select("user_id", pl.col("target").alias("item_id"))
    test = pl.col("split") == "test"
    swapped = pl.concat([b.events.filter(test).head(3).with_columns(stolen["user_id"], stolen["item_id"]), b.events.filter(test).slice(3)])
    return a, replace(b, events=pl.concat([b.events.filter(~test), swapped])), stolen.rows()


def test_rows_that_another_domain_holds_out_are_left_out_before_the_cap(pair: tuple[Domain, Domain]) -> None:
    a, b, stolen = held_out_by_b(pair)
    dropped: dict[str, int] = {}
    mixed = mix_rows([a, b], {"a": 25, "b": 1000}, 42, dropped)
    rows = mixed.filter(mixed["domain"] == "a").select("user_id", "target").rows()
    assert len(rows) == 25
    assert not set(rows) & set(stolen)
    assert dropped["a"] >= 3
    assert mixed.filter(mixed["domain"] == "b").height + dropped["b"] == b.rows.height


def test_the_published_profile_leaves_them_in(pair: tuple[Domain, Domain]) -> None:
    a, b, stolen = held_out_by_b(pair)
    mixed = mix_rows([replace(d, profile="published") for d in (a, b)], {"a": 25, "b": 25}, 42)
    assert set(stolen) <= set(mixed.filter(mixed["domain"] == "a").select("user_id", "target").rows())
