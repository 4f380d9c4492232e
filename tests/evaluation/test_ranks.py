import random

import polars as pl
import pytest

from recmerge.data.dataset import Example, candidates_sha256
from recmerge.errors import DataError
from recmerge.evaluation.ranks import candidate_sha256, counted_ranks, target_ranks


def rankings(*users: tuple[str, list[tuple[str, float | None]], str], ranks: list[int | None] | None = None) -> pl.DataFrame:
    """Rows of (user, [(item, score)], target)."""
    rows = [(user, item, score, item == target) for user, scored, target in users for item, score in scored]
    places = ranks if ranks is not None else [1] * len(rows)
    schema = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "is_target": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.Series("rank", places, dtype=pl.Int32))


def test_counts_better_and_tied() -> None:
    frame = rankings(
        ("u2", [("a", 3.0), ("b", 2.0), ("c", 2.0), ("d", 1.0)], "b"),
        ("u1", [("a", -1.0), ("b", -2.0)], "a"),
    )
    found = target_ranks(frame)
    assert found.user_id.tolist() == ["u1", "u2"]
    assert found.n_candidates.tolist() == [2, 4]
    assert found.n_better.tolist() == [0, 1]
    assert found.n_tied.tolist() == [0, 1]
    assert found.target_rank.tolist() == [1, 2.5]


def test_target_without_score_is_a_miss() -> None:
    found = target_ranks(rankings(("u", [("a", None), ("b", None)], "a")))
    assert found.n_better.tolist() == [float("inf")]
    assert found.n_tied.tolist() == [0]
    assert found.ranked.tolist() == [False]


def test_candidates_without_score_beat_nobody() -> None:
    found = target_ranks(rankings(("u", [("a", -9.0), ("b", None), ("c", -8.0)], "a")))
    assert (found.n_better.tolist(), found.n_tied.tolist()) == ([1], [0])


def test_infinite_scores_are_ordered() -> None:
    found = target_ranks(rankings(("u", [("a", float("-inf")), ("b", 0.0), ("c", float("-inf"))], "a")))
    assert (found.n_better.tolist(), found.n_tied.tolist()) == ([1], [1])


def test_order_of_rows_changes_nothing() -> None:
    draw = random.Random(7)
    users = [(f"u{u}", [(f"i{i}", float(draw.randint(0, 4))) for i in range(10)], f"i{draw.randrange(10)}") for u in range(20)]
    frame = rankings(*users)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=3)
    assert shuffled["item_id"].to_list() != frame["item_id"].to_list()
    a, b = target_ranks(frame), target_ranks(shuffled)
    assert a.n_better.tolist() == b.n_better.tolist()
    assert a.n_tied.tolist() == b.n_tied.tolist()
    assert candidate_sha256(frame) == candidate_sha256(shuffled)


def test_generate_takes_the_place_in_the_output() -> None:
    # The model wrote: something off the list, then b, then a. The target a stands third, though only b of the list is before it.
    frame = rankings(("u", [("a", 1 / 3), ("b", 1 / 2), ("c", None)], "a"), ranks=[3, 2, None])
    assert target_ranks(frame, "generate").n_better.tolist() == [2]
    assert target_ranks(frame, "score").n_better.tolist() == [1]


def test_generate_without_the_target_is_a_miss() -> None:
    frame = rankings(("u", [("a", None), ("b", 1.0)], "a"), ranks=[None, 1])
    assert target_ranks(frame, "generate").ranked.tolist() == [False]


def test_generate_refuses_a_listed_target_without_place() -> None:
    frame = rankings(("u7", [("a", 1.0), ("b", None)], "a"), ranks=[None, None])
    with pytest.raises(DataError, match="u7"):
        target_ranks(frame, "generate")


@pytest.mark.parametrize(("targets", "n"), [("", 0), ("ab", 2)])
def test_every_user_has_exactly_one_target(targets: str, n: int) -> None:
    frame = rankings(("u1", [("a", 1.0)], "a"), ("u2", [("a", 1.0), ("b", 0.5)], "a"))
    frame = frame.with_columns(is_target=pl.when(pl.col("user_id") == "u2").then(pl.col("item_id").is_in(list(targets))).otherwise("is_target"))
    with pytest.raises(DataError, match=f"user 'u2' has {n} targets") as caught:
        target_ranks(frame)
    assert caught.value.exit_code == 3


def test_refuses_nan() -> None:
    with pytest.raises(DataError, match=r"NaN.*'u1', item 'b'"):
        target_ranks(rankings(("u1", [("a", 1.0), ("b", float("nan"))], "a")))


def test_refuses_a_pair_that_stands_twice() -> None:
    frame = rankings(("u1", [("a", 1.0), ("b", 0.5), ("b", 0.5)], "a"))
    with pytest.raises(DataError, match=r"more than once.*'u1', item 'b'"):
        target_ranks(frame)


def test_published_repeats_count_once() -> None:
    # The target was drawn again as a negative: one item, so it is not tied with itself.
    frame = rankings(("u1", [("a", 1.0), ("b", 0.5), ("a", 1.0)], "a"))
    found = target_ranks(frame, repeats=True)
    assert (found.n_candidates.tolist(), found.n_better.tolist(), found.n_tied.tolist()) == ([2], [0], [0])


def test_refuses_missing_columns_and_no_rows() -> None:
    frame = rankings(("u1", [("a", 1.0)], "a"))
    with pytest.raises(DataError, match="no column score"):
        target_ranks(frame.drop("score"))
    with pytest.raises(DataError, match="no row"):
        target_ranks(frame.clear())


def test_mode_must_be_known() -> None:
    with pytest.raises(ValueError, match="guess"):
        target_ranks(rankings(("u1", [("a", 1.0)], "a")), "guess")


def test_sha_equals_that_of_the_data_set() -> None:
    asked = [Example("d", "u2", ("x",), "b", ("b", "a", "c")), Example("d", "u1é", (), "c", ("c", "a", "b"))]
    frame = rankings(*((e.user_id, [(c, 0.0) for c in e.candidates], e.target) for e in asked))
    assert candidate_sha256(frame) == candidates_sha256(asked)
    other = frame.with_columns(is_target=pl.col("item_id") == "a")
    assert candidate_sha256(other) != candidates_sha256(asked)


def counts(*rows: tuple[str, int, int | None, int]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "n_candidates", "n_better", "n_tied"], orient="row")


def test_places_may_come_from_counts() -> None:
    found = counted_ranks(counts(("v", 18_000, 17_999, 0), ("u", 3, 0, 2)))
    assert found.user_id.tolist() == ["u", "v"]
    assert found.n_candidates.tolist() == [3, 18_000]
    assert found.target_rank.tolist() == [2, 18_000]


@pytest.mark.parametrize("wrong", [("u", 3, 3, 0), ("u", 3, 1, 2), ("u", 3, -1, 0), ("u", 3, None, 0), ("w", 3, 0, 0)])
def test_counts_that_do_not_fit_are_refused(wrong: tuple[str, int, int | None, int]) -> None:
    with pytest.raises(DataError, match=f"of '{wrong[0]}'"):
        counted_ranks(counts(("w", 3, 0, 0), wrong))
    with pytest.raises(DataError, match="no column n_tied"):
        counted_ranks(counts(wrong).drop("n_tied"))
    with pytest.raises(DataError, match="no row"):
        counted_ranks(counts())
