from dataclasses import replace

import polars as pl
import pytest

from recmerge.data.dataset import Domain, Example
from recmerge.rankers.sequential.purchases import read_purchases, read_questions, validation_questions

EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "position": pl.Int32, "split": pl.String}


def domain() -> Domain:
    """`e` was never bought in training, v has no training event."""
    events = [
        ("u", "c", None, 0, "train"),
        ("u", "d", 40, 1, "train"),
        ("u", "a", 50, 2, "valid"),
        ("u", "b", 60, 3, "test"),
        ("v", "e", 20, 0, "test"),
        ("w", "d", 10, 0, "train"),
        ("w", "b", 30, 1, "train"),
        ("w", "c", 70, 2, "valid"),
    ]
    items = pl.DataFrame({"item_id": list("dbaec"), "title": list("DBAEC")})
    candidates = pl.DataFrame({"split": ["valid", "valid"], "user_id": ["w", "u"], "target": ["c", "a"], "candidates": [["c", "e"], ["b", "a"]]})
    empty = pl.DataFrame()
    return Domain("sports", "clean", items, pl.DataFrame(events, schema=EVENTS, orient="row"), empty, empty, candidates)


@pytest.mark.parametrize("turned", [False, True])
def test_training_events_in_numbers(turned: bool) -> None:
    shop = domain()
    found = read_purchases(replace(shop, events=shop.events.reverse()) if turned else shop)
    assert found.items == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert found.users == {"u": 1, "w": 2}
    assert found.starts.tolist() == [0, 2, 4]
    assert found.bought.tolist() == [3, 4, 4, 2]
    assert found.times.tolist() == [-1, 40, 10, 30]


def test_validation_users_are_asked_with_what_they_bought_before() -> None:
    asked = validation_questions(read_purchases(domain()), 10)
    assert asked is not None
    assert asked.users.tolist() == [1, 2]
    assert asked.starts.tolist() == [0, 2, 4]
    assert asked.bought.tolist() == [3, 4, 4, 2]
    assert asked.candidates.tolist() == [[2, 1], [3, 5]]
    assert asked.targets.tolist() == [1, 3]
    one = validation_questions(read_purchases(domain()), 1)
    assert one is not None
    assert len(one.users) == 1


def test_unknown_items_leave_histories_and_are_cold_candidates() -> None:
    questions = [Example("sports", "u", ("a", "x", "b", "a"), "x", ("x", "b")), Example("sports", "n", ("x",), "b", ("b", "y"))]
    asked = read_questions(questions, {"a": 1, "b": 2}, {"u": 7})
    assert asked.users.tolist() == [7, 0]
    assert asked.bought.tolist() == [1, 2, 1]
    assert asked.starts.tolist() == [0, 3, 3]
    assert asked.candidates.tolist() == [[0, 2], [2, 0]]
    assert asked.targets.tolist() == [0, 2]


def test_nobody_to_ask() -> None:
    shop = domain()
    assert validation_questions(read_purchases(replace(shop, candidates=shop.candidates.clear())), 10) is None
    assert read_questions([], {}, {}).candidates.shape == (0, 0)
