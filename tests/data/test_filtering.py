import polars as pl
import pytest

from recmerge.data.filtering import drop_repeats, drop_untitled, k_core, sample_users
from recmerge.errors import DataError


def events(*pairs: str) -> pl.DataFrame:
    return pl.DataFrame([(p[0], p[1]) for p in pairs], schema=["user_id", "item_id"], orient="row")


def pairs(frame: pl.DataFrame) -> list[str]:
    return [u + i for u, i in frame.select("user_id", "item_id").iter_rows()]


def test_untitled_and_unknown_items_are_dropped_and_counted() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", None]})
    counts: dict[str, int] = {}
    kept = drop_untitled(events("ua", "ub", "uc", "vc"), items, counts)
    assert pairs(kept) == ["ua"]
    assert counts == {"unknown_item": 2, "no_title": 1}


def test_no_titled_item_at_all_says_so() -> None:
    with pytest.raises(DataError, match="unknown or have no title"):
        drop_untitled(events("ua"), pl.DataFrame({"item_id": ["z"], "title": ["Z"]}), {})


def test_repeats_keep_the_first() -> None:
    counts: dict[str, int] = {}
    assert pairs(drop_repeats(events("ua", "ub", "ua", "va"), counts)) == ["ua", "ub", "va"]
    assert counts == {"repeated": 1}


def test_the_core_is_taken_until_it_holds() -> None:
    # d has one user, so v falls to two events and is dropped; then c has one user and u still has three items.
    frame = events("ua", "ub", "uc", "wa", "wb", "wc", "va", "vc", "vd")
    counts: dict[str, int] = {}
    kept = k_core(frame, 2, counts)
    assert pairs(kept) == ["ua", "ub", "uc", "wa", "wb", "wc"]
    assert counts == {"k_core": 3}


def test_an_unravelling_core_names_the_filter() -> None:
    chain = events("ua", "ub", "uc", "vc", "vd", "ve")
    with pytest.raises(DataError, match="5-core is empty: 6 events"):
        k_core(chain, 5, {})


def test_a_user_needs_three_events_whatever_k_is() -> None:
    assert pairs(k_core(events("ua", "ub", "uc", "va", "vb"), 1, {})) == ["ua", "ub", "uc"]


def test_the_core_does_not_depend_on_the_order_of_events() -> None:
    frame = events("ua", "ub", "uc", "wa", "wb", "wc", "va", "vc", "vd")
    assert sorted(pairs(k_core(frame.reverse(), 2, {}))) == sorted(pairs(k_core(frame, 2, {})))


def test_a_sample_holds_that_many_users_and_is_seeded() -> None:
    frame = events(*(f"{u}a" for u in "abcdefghijklmnop"))
    counts: dict[str, int] = {}
    first = pairs(sample_users(frame, 5, 1, counts))
    assert len(first) == 5
    assert counts == {"not_sampled": 11}
    assert sorted(pairs(sample_users(frame.reverse(), 5, 1, {}))) == sorted(first)
    assert pairs(sample_users(frame, 5, 2, {})) != first
    assert set(first) <= set(pairs(sample_users(frame, 6, 1, {})))
    assert sample_users(frame, None, 1, {}).equals(frame)
