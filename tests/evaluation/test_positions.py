import numpy as np
import polars as pl
import pytest

from recmerge.evaluation.positions import listed_positions, position_bias
from recmerge.evaluation.ranks import target_ranks

N = 10


def rankings(scores: np.ndarray, targets: np.ndarray) -> pl.DataFrame:
    """Lists of the items in the order of the scores' columns."""
    n = len(scores)
    ranks = 1 + (scores[:, None, :] > scores[:, :, None]).sum(-1)
    return pl.DataFrame(
        {
            "user_id": [f"u{u:04d}" for u in range(n) for _ in range(N)],
            "item_id": [f"i{c}" for _ in range(n) for c in range(N)],
            "score": scores.reshape(-1),
            "rank": ranks.reshape(-1),
            "is_target": [c == target for target in targets for c in range(N)],
        }
    )


def bias(frame: pl.DataFrame) -> dict:
    found = position_bias(listed_positions(frame), target_ranks(frame), 500)
    assert found is not None
    return found


def test_by_hand() -> None:
    scores = np.zeros((4, N))
    scores[0, 9] = scores[1, 0] = scores[2, 4] = 1.0
    scores[3, [0, 9]] = 1.0  # two share the first place
    found = bias(rankings(scores, np.array([9, 5, 4, 0])))
    assert found["first_choice"]["value"] == pytest.approx((1 + 0 + 4 / 9 + 1 / 2) / 4)
    assert [part["chosen"] for part in found["parts"]] == pytest.approx([1.5 / 4, 0, 1 / 4, 0, 1.5 / 4])
    assert [part["n_users"] for part in found["parts"]] == [1, 0, 2, 0, 1]
    assert [part["ndcg@1"] for part in found["parts"]] == [1 / 2, None, 1 / 2, None, 1]


def test_order_of_users_does_not_matter() -> None:
    draw = np.random.default_rng(1)
    frame = rankings(draw.normal(size=(50, N)), draw.integers(N, size=50))
    turned = pl.concat(frame.partition_by("user_id")[::-1])
    assert bias(frame) == bias(turned)


def test_a_blind_ranker_stands_at_the_middle_and_one_that_likes_the_front_does_not() -> None:
    draw = np.random.default_rng(2)
    scores, targets = draw.normal(size=(4000, N)), draw.integers(N, size=4000)
    scores[np.arange(4000), targets] += 1
    low, high = bias(rankings(scores, targets))["first_choice"]["ci95"]
    assert low < 0.5 < high
    leaning = bias(rankings(scores - 0.1 * np.arange(N), targets))
    assert leaning["first_choice"]["ci95"][1] < 0.45
    right = [part["ndcg@1"] for part in leaning["parts"]]
    assert right[0] > right[2] > right[4]


def test_generated_lists_by_the_first_named() -> None:
    frame = rankings(np.zeros((2, N)), np.array([3, 3])).with_columns(score=pl.lit(None, dtype=pl.Float64), rank=pl.lit(None, dtype=pl.Int32))
    rank = [None] * (2 * N)
    rank[7], rank[3] = 2, 4  # the first output was off the list
    frame = frame.with_columns(rank=pl.Series(rank, dtype=pl.Int32))
    positions = listed_positions(frame, "generate")
    assert positions.chosen[0] == pytest.approx(7 / 9)
    assert np.isnan(positions.chosen[1])  # nothing was named
    found = position_bias(positions, target_ranks(frame, "generate"), 100)
    assert found is not None
    assert [part["chosen"] for part in found["parts"]] == [0, 0, 0, 1, 0]
    assert sum(part["n_users"] for part in found["parts"]) == 1


def test_nothing_to_say_of_lists_of_one() -> None:
    frame = rankings(np.zeros((3, N)), np.array([0, 0, 0])).filter(pl.col("is_target"))
    assert position_bias(listed_positions(frame), target_ranks(frame)) is None
