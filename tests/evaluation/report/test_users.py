import numpy as np
import polars as pl
import pytest

from recmerge.evaluation.examples import BETTER, DRAWN, WORSE, Candidate, Example, Picked, Shown, candidate_ranks, describe_users, pick_users, targets_of
from recmerge.evaluation.report import render_report
from recmerge.evaluation.report.users import users_section

USERS = [f"u{i}" for i in range(10)]


def ranking(rows: list[tuple[str, str, float | None, int | None, bool]]) -> pl.DataFrame:
    schema = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "rank": pl.Int32, "is_target": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_two_of_each_kind_are_drawn() -> None:
    first = np.array([1, 1, 1, 5, 5, 5, 2, 2, 2, np.inf])
    second = np.array([2, 3, np.inf, 1, 1, 4.5, 2, 2, 2, np.inf])  # better for 0 to 2, worse for 3 to 5, alike for the others: two misses too
    picked = pick_users(USERS, first, second, 7)
    assert (picked.n_better, picked.n_worse, picked.n_users) == (3, 3, 10)
    assert list(picked.users.values()) == [BETTER, BETTER, WORSE, WORSE, DRAWN, DRAWN]
    assert {u for u, kind in picked.users.items() if kind == BETTER} < {"u0", "u1", "u2"}
    assert {u for u, kind in picked.users.items() if kind == WORSE} < {"u3", "u4", "u5"}
    assert pick_users(USERS, first, second, 7) == picked
    assert len({tuple(pick_users(USERS, first, second, seed).users) for seed in range(20)}) > 1


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ([1, 2, 3], [1, 2, 3], [DRAWN, DRAWN]),
        ([1, 2, 3], [2, 3, 4], [BETTER, BETTER, DRAWN]),
        ([3], [1], [WORSE]),
        ([1] * 10, None, [DRAWN] * 6),
        ([1, 1], None, [DRAWN] * 2),
    ],
)
def test_fewer_where_there_are_fewer(first: list[float], second: list[float] | None, kinds: list[str]) -> None:
    picked = pick_users(USERS[: len(first)], np.array(first, float), None if second is None else np.array(second, float), 1)
    assert list(picked.users.values()) == kinds


def test_ranks_share_ties_and_know_what_was_not_ranked() -> None:
    frame = ranking([("u", "a", 3.0, 1, True), ("u", "b", 2.0, 2, False), ("u", "c", 2.0, 3, False), ("u", "d", None, None, False), ("x", "a", 9.0, 1, True)])
    assert candidate_ranks(frame, ["u"]) == {"u": {"a": 1.0, "b": 2.5, "c": 2.5, "d": None}}
    assert candidate_ranks(frame, ["u"], "generate") == {"u": {"a": 1.0, "b": 2.0, "c": 3.0, "d": None}}
    assert targets_of(frame, ["u"]) == {"u": "a"}
    assert candidate_ranks(pl.concat([frame, frame[:1]]), ["u"])["u"]["b"] == 2.5  # an item named twice counts once


def test_what_is_shown_of_a_user() -> None:
    ids = [f"i{n}" for n in range(12)]
    own = [("u", item, n, "test" if n == 10 else "valid" if n == 9 else "train") for n, item in enumerate(ids[:11])]
    events = pl.DataFrame([*own, ("x", "i11", 0, "train")], schema=["user_id", "item_id", "position", "split"], orient="row")
    items = pl.DataFrame({"item_id": ids[:-1], "title": [f"Title {n}" for n in range(11)]})
    first = {"u": {f"i{n}": float(n + 1) for n in range(12)}}
    second = {"u": {"i10": 1.0, "i0": None}}
    (example,) = describe_users(Picked({"u": BETTER}, 1, 0, 1), {"u": "i11"}, [first, second], items, events, "test")
    assert example.history == tuple(f"Title {n}" for n in range(2, 10))  # the validation event is among them, the target is not
    assert example.n_history == 10
    assert [c.title for c in example.candidates] == ["Title 0", "Title 1", "Title 2", "Title 3", "Title 4", "i11"]
    assert [c.is_target for c in example.candidates] == [False] * 5 + [True]
    assert example.candidates[0].ranks == (1.0, None)
    assert example.candidates[5].ranks == (12.0, None)
    (of_valid,) = describe_users(Picked({"u": BETTER}, 1, 0, 1), {"u": "i0"}, [first], items, events, "valid")
    assert (of_valid.n_history, of_valid.history[-1]) == (9, "Title 8")
    assert [c.is_target for c in of_valid.candidates] == [True, False, False, False, False]  # a target among the first is not repeated


def test_a_user_without_history() -> None:
    events = pl.DataFrame([("u", "a", 0, "test")], schema=["user_id", "item_id", "position", "split"], orient="row")
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"]})
    (example,) = describe_users(Picked({"u": DRAWN}, None, None, 1), {"u": "a"}, [{"u": {"a": 1.0}}], items, events, "test")
    assert (example.history, example.n_history, len(example.candidates)) == ((), 0, 1)


def test_the_section_states_its_rule_and_its_ranks() -> None:
    example = Example("ann", WORSE, ("Old & worn",), 3, (Candidate("Ball", False, (1.0, None)), Candidate("x" * 500, True, (2.5, 1.0))))
    section = users_section(Shown(Picked({"ann": WORSE}, 12, 1234, 2000), [example], ["a", "b"], 42), ["woven", "plain"])
    assert "seed 42" in section.note
    assert "up to 2 of the 12 users whose target woven ranks better than plain, up to 2 of the 1,234 where it is worse" in section.note
    (user,) = section.users
    assert user.heading == "ann: woven is worse"
    assert user.past == "The last 1 of 3 purchases before"
    assert [list(p.ranks) for p in user.proposals] == [["1", "–"], ["2.5", "1"]]
    assert len(user.proposals[1].title) == 120
    text = render_report("t", [section])
    assert text.index("ann: woven is worse</h3>") < text.index("Old &amp; worn") < text.index("rank by plain</th>") < text.index("<td>2.5</td>")
    assert text.count(">bought</span>") == 1
    alone = users_section(Shown(Picked({"ann": DRAWN}, None, None, 2000), [example], ["a"], 5), ["woven"])
    assert alone.note.startswith("One user of 2,000, drawn at random (seed 5).")
