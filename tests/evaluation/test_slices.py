import polars as pl

from recmerge.evaluation.slices import popularity_cuts, slices, user_facts

USERS = pl.DataFrame({"user_id": ["u1", "u2", "u3"], "tied": [True, False, False]})
EVENTS = pl.DataFrame(  # a time split: u3 has no validation event, u2 one event behind the test that nobody asks about
    {
        "user_id": ["u1", "u2", "u3", "u3", "u1", "u1", "u2", "u2", "u3", "u2"],
        "item_id": ["a", "a", "a", "b", "c", "d", "b", "c", "c", "e"],
        "position": [0, 0, 0, 1, 3, 4, 4, 5, 10, 6],
        "split": ["train", "train", "train", "train", "valid", "test", "valid", "test", "test", "unasked"],
    }
)
RANKINGS = pl.DataFrame(
    {
        "user_id": ["u1", "u1", "u2", "u3", "u4"],
        "item_id": ["a", "b", "b", "c", "a"],
        "is_target": [True, False, True, True, True],
    }
)


def test_facts_count_training_events_alone() -> None:
    facts = user_facts(RANKINGS, USERS, EVENTS, "test")
    assert facts["user_id"].to_list() == ["u1", "u2", "u3", "u4"]
    assert facts["n_train"].to_list() == [3, 1, 0, 3]
    assert facts["n_history"].to_list() == [4, 5, 10, None]
    assert user_facts(RANKINGS, USERS, EVENTS, "valid")["n_history"].to_list() == [3, 4, None, None]


def test_slices() -> None:
    masks = slices(user_facts(RANKINGS, USERS, EVENTS, "test"), (3, 2))
    members = {name: [f"u{i + 1}" for i, inside in enumerate(mask) if inside] for name, mask in masks.items()}
    assert members == {
        "all": ["u1", "u2", "u3", "u4"],
        "tied_last_two": ["u1"],
        "history_1-4": ["u1"],
        "history_5-9": ["u2"],
        "history_10+": ["u3"],
        "target_head": ["u1", "u4"],
        "target_tail": ["u2"],
        "target_unseen": ["u3"],
    }


def test_empty_slices_are_left_out() -> None:
    masks = slices(user_facts(RANKINGS.head(2), USERS, EVENTS, "test"), (3, 2))
    assert set(masks) == {"all", "tied_last_two", "history_1-4", "target_head"}


def test_a_target_of_the_middle() -> None:
    facts = user_facts(RANKINGS, USERS, EVENTS, "test")  # targets bought 3, 1, 0 and 3 times in training
    masks = slices(facts, (3, 1))
    assert masks["target_middle"].tolist() == [False, True, False, False]
    assert "target_tail" not in masks
    assert sum(masks[name].astype(int) for name in ("target_head", "target_middle", "target_unseen")).tolist() == [1, 1, 1, 1]


def test_head_is_the_most_bought_fifth_and_middle_the_rest_of_the_upper_half() -> None:
    counts = {"a": 9, "b": 7, "c": 3, "d": 3, "e": 2, "f": 1, "g": 1, "h": 1, "i": 1, "j": 1}
    events = pl.DataFrame({"item_id": [i for i, n in counts.items() for _ in range(n)]}).with_columns(split=pl.lit("train"))
    assert popularity_cuts(events) == (7, 2)  # two of ten items, five of ten
    assert popularity_cuts(events.head(3)) == (3, 3)  # one item alone is the head
    assert popularity_cuts(events.clear()) == (1, 1)
