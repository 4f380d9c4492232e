import polars as pl
import pytest

from recmerge.data.splitting import Cuts, TimeSplit, find_cuts, moment, order_events, refuse_unknown_times, split_by_time, split_events, user_table
from recmerge.errors import DataError


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
        split_events(
            frame(
                *(("a", "x", t) for t in (1, 1, 2)),
                *(("b", "x", t) for t in (1, 2, 2)),
                *(("c", "x", t) for t in (None, None, None)),
                *(("d", "x", t) for t in (None, 5, 5)),
            )
        )
    )
    assert users["n_events"].to_list() == [3, 3, 3, 3]
    assert users["tied"].to_list() == [False, True, False, True]


def test_cuts_lie_where_the_shares_say() -> None:
    times = pl.Series([7, 3, 0, 1, 9, 5, 2, 8, 6, 4])  # ten events at 0 to 9
    assert find_cuts(times, TimeSplit(0.1, 0.1)) == Cuts(8, 9)
    assert find_cuts(times, TimeSplit(0.2, 0.3)) == Cuts(5, 7)
    assert find_cuts(times, TimeSplit(0.15, 0.1)) == Cuts(7, 9)  # a quarter of ten events is three, so that each share is there at least
    assert find_cuts(times, TimeSplit(cuts=Cuts(2, 4))) == Cuts(2, 4)


def test_events_of_one_time_are_never_divided() -> None:
    times = pl.Series([0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    assert find_cuts(times, TimeSplit(0.4, 0.1)) == Cuts(2, 3)  # the last tenth is one of three events at 3: all three are behind the cut
    with pytest.raises(DataError, match="cut at 1970-01-01T00:00:03 and 1970-01-01T00:00:03, but the first event is of 1970-01-01: too many"):
        find_cuts(times, TimeSplit(0.1, 0.1))
    with pytest.raises(DataError, match="too many events share a time"):
        find_cuts(pl.Series([0, 0, 0, 1]), TimeSplit(0.5, 0.25))


def test_a_time_split_asks_for_the_first_event_of_each_period() -> None:
    events = frame(
        *(("a", c, t) for c, t in zip("pqrstu", (1, 9, 10, 12, 20, 25), strict=True)),  # both periods, two events in each
        *(("b", c, t) for c, t in zip("pqr", (1, 2, 30), strict=True)),  # the test period alone
        *(("c", c, t) for c, t in zip("pqr", (11, 13, 21), strict=True)),  # begins in the validation period
        *(("d", c, t) for c, t in zip("pqr", (20, 21, 22), strict=True)),  # begins in the test period: no history for anything
    )
    split = split_by_time(events, Cuts(10, 20))
    found = {user: split.filter(pl.col("user_id") == user)["split"].to_list() for user in "abcd"}
    assert found == {
        "a": ["train", "train", "valid", "unasked", "test", "unasked"],
        "b": ["train", "train", "test"],
        "c": ["unasked", "unasked", "test"],  # what it bought before the test cut is its history, but nobody trains on it
        "d": ["unasked", "unasked", "unasked"],
    }
    assert split.columns == [*split_events(events).columns]
    assert split.filter(pl.col("user_id") == "a")["position"].to_list() == [0, 1, 2, 3, 4, 5]


def test_a_tie_under_a_time_split_is_of_the_test_target() -> None:
    events = frame(*(("a", c, t) for c, t in zip("pqrs", (1, 1, 20, 21), strict=True)), *(("b", c, t) for c, t in zip("pqr", (1, 20, 20), strict=True)))
    assert user_table(split_by_time(events, Cuts(10, 20)))["tied"].to_list() == [False, True]


def test_unknown_times_are_counted_in_the_refusal() -> None:
    refuse_unknown_times(frame(("u", "a", 1)))
    with pytest.raises(DataError, match="2 of 3 events have none"):
        refuse_unknown_times(frame(("u", "a", None), ("u", "b", 2), ("v", "a", None)))


def test_moments_are_dates_where_they_can_be() -> None:
    assert moment(1_388_102_400) == "2013-12-27"
    assert moment(1_388_102_401) == "2013-12-27T00:00:01"
