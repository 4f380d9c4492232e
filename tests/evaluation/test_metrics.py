import math

import numpy as np
import pytest

from recmerge.evaluation.metrics import chance, expected_metric, hit_curve, mean_places, metric_names, per_user, whole_list_metrics

INF = float("inf")


@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [
        ("ndcg@1", 1, 1.0),
        ("ndcg@1", 2, 0.0),
        ("ndcg@3", 2, 1 / math.log2(3)),
        ("ndcg@3", 3, 1 / 2),
        ("ndcg@3", 4, 0.0),
        ("ndcg@5", 5, 1 / math.log2(6)),
        ("mrr@5", 4, 1 / 4),
        ("mrr@5", 6, 0.0),
        ("hr@5", 5, 1.0),
        ("hr@5", 6, 0.0),
        ("mrr", 30, 1 / 30),
    ],
)
def test_without_ties(name: str, rank: int, expected: float) -> None:
    assert expected_metric(name, [rank - 1], [0]).tolist() == [pytest.approx(expected, abs=1e-15)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ndcg@1", 1 / 30),
        ("hr@5", 5 / 30),
        ("mrr@5", (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 30),
        ("mrr", sum(1 / r for r in range(1, 31)) / 30),  # the 30th harmonic number over 30
        ("ndcg@3", (1 + 1 / math.log2(3) + 1 / 2) / 30),
    ],
)
def test_thirty_equal_scores(name: str, expected: float) -> None:
    assert expected_metric(name, [0], [29])[0] == pytest.approx(expected, abs=1e-15)
    assert chance([30, 30], [1, 3, 5]).get(name, expected) == pytest.approx(expected, abs=1e-15)


def test_the_whole_list_by_hand() -> None:
    found = whole_list_metrics([0, 3, 1, INF, 0], [0, 0, 2, 0, 0], [4, 4, 4, 4, 1])
    assert found["auc"].tolist() == pytest.approx([1, 0, 1 / 3, 0, 1])  # tied with two below one better: 1 of 3 others below, on average
    assert found["mean_rank"].tolist() == [1, 4, 3, 4, 1]
    assert chance([5], [1])["auc"] == 0.5
    assert chance([5], [1])["mean_rank"] == 3.0


def test_a_tie_across_the_cut_off() -> None:
    # Two better, three tied: ranks 3 to 6, of which 3, 4 and 5 are within five.
    assert expected_metric("hr@5", [2], [3])[0] == pytest.approx(3 / 4)
    assert expected_metric("mrr@5", [2], [3])[0] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 4)


def test_a_tie_is_the_mean_of_its_orders() -> None:
    for name in metric_names([1, 3, 5]):
        orders = expected_metric(name, [1, 2, 3, 4], [0, 0, 0, 0])
        assert expected_metric(name, [1], [3])[0] == pytest.approx(orders.mean())


def test_a_miss_is_zero_everywhere() -> None:
    for values in per_user([INF, 0], [0, 0], [1, 3, 5]).values():
        assert values.tolist() == [0.0, 1.0]


def test_only_misses() -> None:
    assert expected_metric("mrr", [INF, INF], [0, 0]).tolist() == [0.0, 0.0]


def test_no_users() -> None:
    assert expected_metric("mrr", [], []).shape == (0,)


def test_names() -> None:
    assert metric_names([5, 1, 3]) == ["ndcg@1", "ndcg@3", "ndcg@5", "mrr@3", "mrr@5", "hr@3", "hr@5", "mrr"]
    assert metric_names([1]) == ["ndcg@1", "mrr@1", "hr@1", "mrr"]


@pytest.mark.parametrize("name", ["ndcg", "hr", "ndcg@0", "mrr@", "auc@5", "hr@-1", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown metric"):
        expected_metric(name, [0], [0])


def test_more_better_candidates_never_raise_a_metric() -> None:
    better = np.arange(0, 40)
    for name in metric_names([1, 3, 5]):
        assert (np.diff(expected_metric(name, better, np.zeros(40))) <= 0).all()


def test_hit_curve() -> None:
    assert hit_curve([0, 2, INF, 0], [0, 0, 0, 1], 3) == [1.5 / 4, 2 / 4, 3 / 4]


def test_chance_of_mixed_lists() -> None:
    assert chance([2, 4], [1])["ndcg@1"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_places_beside_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for size in (1, 2, 30):
        scores = draw.integers(size, size=(200, size)).astype(float)
        scores[0] = -np.inf
        assert (mean_places(scores) == stats.rankdata(-scores, axis=1)).all()
    assert mean_places(np.empty((0, 5))).shape == (0, 5)
