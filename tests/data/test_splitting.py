import polars as pl
import pytest

from recmerge.data.splitting import order_events, split_events, user_table


def frame(*rows: tuple[str, str, int | None]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}, orient="row")


def items_of(events: pl.DataFrame, user: str = "u") -> str:
    return "".join(events.filter(pl.col("user_id") == user)["item_id"])


def test_events_are_ordered_by_time_then_item() -> None:
    events = frame(("u", "d", 2), ("v", "x", 9), ("u", "b", 1), ("u", "a", 2), ("u", "c", 1), ("v", "y", 8))
    ordered = order_events(events, "item_id", 42)
    assert items_of(ordered) == "bcad"
    assert items_of(ordered, "v") == "yx"
    assert list(ordered["user_id"]) == ["u", "u", "u", "u", "v", "v"]


def test_file_order_among_equal_times() -> None:
    assert items_of(order_events(frame(("u", "d", 2), ("u", "b", 2), ("u", "c", 1)), "file", 42)) == "cdb"


def test_a_user_with_any_unknown_time_keeps_the_order_of_the_file() -> None:
    events = frame(("u", "d", 3), ("v", "b", 2), ("u", "a", None), ("u", "c", 1), ("v", "a", 1))
    ordered = order_events(events, "item_id", 42)
    assert items_of(ordered) == "dac"
    assert items_of(ordered, "v") == "ab"


def test_the_hash_order_is_seeded_and_independent_of_the_file() -> None:
    events = frame(*(("u", c, 1) for c in "abcdefgh"))
    one = items_of(order_events(events, "hash", 1))
    assert one == items_of(order_events(events.reverse(), "hash", 1))
    assert sorted(one) == list("abcdefgh")
    assert one != "abcdefgh"
    assert one != items_of(order_events(events, "hash", 2))


def test_the_hash_breaks_ties_only() -> None:
    assert items_of(order_events(frame(("u", "c", 3), ("u", "b", 2), ("u", "a", 1)), "hash", 1)) == "abc"


def test_unknown_tie_break() -> None:
    with pytest.raises(ValueError, match="none of item_id, hash, file"):
        order_events(frame(("u", "a", 1)), "random", 1)


def test_the_last_two_events_are_held_out() -> None:
    split = split_events(frame(*(("u", c, i) for i, c in enumerate("abcde")), *(("v", c, i) for i, c in enumerate("abc"))))
    assert split.filter(pl.col("user_id") == "u")["split"].to_list() == ["train", "train", "train", "valid", "test"]
    assert split.filter(pl.col("user_id") == "v")["split"].to_list() == ["train", "valid", "test"]
    assert split["position"].to_list() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_a_tie_is_of_the_last_two_known_times() -> None:
    users = user_table(
        frame(
            *(("a", "x", t) for t in (1, 1, 2)),
            *(("b", "x", t) for t in (1, 2, 2)),
            *(("c", "x", t) for t in (None, None, None)),
            *(("d", "x", t) for t in (None, 5, 5)),
        )
    )
    assert users["n_events"].to_list() == [3, 3, 3, 3]
    assert users["tied"].to_list() == [False, True, False, True]
