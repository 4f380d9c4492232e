import numpy as np
import pytest

from recmerge.evaluation.significance import bootstrap_means, detectable_difference, figures, holm, interval, paired_differences, permutation_test


def test_one_value_has_no_spread() -> None:
    means = bootstrap_means(np.full((50, 1), 0.5), 200)
    assert interval(means).tolist() == [[0.5], [0.5]]


def test_spread_is_that_of_the_binomial() -> None:
    # 400 users, half of them hit: the mean's standard error is sqrt(.5 * .5 / 400) = 0.025.
    values = np.repeat([[0.0], [1.0]], 200, axis=0)
    means = bootstrap_means(values, 4000, seed=1)
    assert means.mean() == pytest.approx(0.5, abs=0.002)
    assert means.std() == pytest.approx(0.025, rel=0.06)
    low, high = interval(means)[:, 0]
    assert (low, high) == (pytest.approx(0.5 - 1.96 * 0.025, abs=0.005), pytest.approx(0.5 + 1.96 * 0.025, abs=0.005))


def test_seeds_repeat_and_differ() -> None:
    values = np.random.default_rng(0).random((30, 2))
    assert (bootstrap_means(values, 100, seed=5) == bootstrap_means(values, 100, seed=5)).all()
    assert (bootstrap_means(values, 100, seed=5) != bootstrap_means(values, 100, seed=6)).any()


def test_order_of_users_changes_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 3, (40, 2)).astype(float)
    assert (bootstrap_means(values, 50) == bootstrap_means(values[::-1], 50)).all()


def test_columns_share_their_users() -> None:
    values = np.random.default_rng(0).random((25, 1))
    means = bootstrap_means(np.hstack([values, 2 * values]), 100)
    assert means[:, 1] == pytest.approx(2 * means[:, 0])


def test_chunks_give_as_many_samples_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmerge.evaluation.significance._CELLS", 70)
    assert bootstrap_means(np.arange(10.0)[:, None], 25).shape == (25, 1)


def test_no_users_are_refused() -> None:
    with pytest.raises(ValueError, match="no users"):
        bootstrap_means(np.zeros((0, 1)))


def test_equal_systems_differ_by_nothing() -> None:
    values = np.random.default_rng(0).random((100, 1))
    (found,) = paired_differences(values, values, 500)
    assert (found.value, found.low, found.high, found.p, found.detectable, found.n_users) == (0.0, 0.0, 0.0, 1.0, np.inf, 100)


def test_a_difference_for_every_user_has_the_smallest_p() -> None:
    values = np.random.default_rng(0).random((100, 1))
    (up,) = paired_differences(values + 1, values, 999)
    assert (up.value, up.p) == (pytest.approx(1.0), 2 / 1000)
    (down,) = paired_differences(values, values + 1, 999)
    assert (down.value, down.p) == (pytest.approx(-1.0), 2 / 1000)


def test_pairing_sees_what_unpaired_intervals_hide() -> None:
    # Users differ far more than systems: only 20 of 1,000 users gain, none loses.
    base = (np.arange(1000) % 2).astype(float)[:, None]
    better = base.copy()
    better[np.flatnonzero(base[:, 0] == 0)[:20]] = 1.0
    (found,) = paired_differences(better, base, 2000)
    assert found.value == pytest.approx(0.02)
    assert found.p < 0.01
    assert found.low > 0


def test_detectable_difference_by_hand() -> None:
    # Differences +1 and -1 in equal numbers: variance 100/99 over 100 users; z = 1.959964 + 0.841621.
    delta = np.repeat([[1.0], [-1.0]], 50, axis=0)
    assert detectable_difference(delta)[0] == pytest.approx(2.801585 * np.sqrt(100 / 99) / 10, rel=1e-6)
    assert detectable_difference(delta[:1])[0] == np.inf


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_differences(np.zeros((3, 1)), np.zeros((2, 1)))


def test_holm_by_hand() -> None:
    # Sorted .01 .03 .04: times 3, 2, 1 = .03 .06 .04, never falling: .03 .06 .06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_permutations_of_three_users_by_hand() -> None:
    # |1 + 1 + 2| of the signs' eight sums 4, 2, 2, 0, 0, -2, -2, -4: two are as far from zero as 4, six as far as 2
    all_up, mixed = permutation_test(np.array([[1.0, 1.0], [1.0, -1.0], [2.0, 2.0]]), 40_000)
    assert all_up == pytest.approx(2 / 8, abs=0.01)
    assert mixed == pytest.approx(6 / 8, abs=0.01)


def test_permutations_agree_with_a_coin_per_user() -> None:
    delta = np.random.default_rng(0).choice([-0.5, 0.0, 0.25, 1.0], (300, 1), p=[0.2, 0.6, 0.1, 0.1])
    coins = np.random.default_rng(1).choice([-1.0, 1.0], (20_000, 300))
    share = (np.abs(coins @ delta[:, 0]) >= abs(delta.sum()) - 1e-9).mean()
    assert permutation_test(delta, 20_000)[0] == pytest.approx(share, abs=0.01)


def test_permutations_at_their_ends() -> None:
    assert permutation_test(np.zeros((10, 1)), 99).tolist() == [1.0]
    assert permutation_test(np.ones((100, 1)), 99).tolist() == [1 / 100]
    delta = np.random.default_rng(0).normal(size=(50, 2))
    assert permutation_test(delta, 500)[1] == permutation_test(delta[:, 1:], 500)[0]  # a metric's p is its own


def test_a_true_null_is_rejected_as_often_as_said_and_intervals_cover() -> None:
    # 300 evaluations of two systems that are alike, and of a mean that is known: 95 % intervals and 5 % tests keep their word
    draw, rejected, permuted, covered = np.random.default_rng(0), 0, 0, 0
    for i in range(300):
        one, two = (draw.binomial(1, 0.2, (200, 1)).astype(float) for _ in range(2))
        (found,) = paired_differences(one, two, 400, seed=i)
        rejected, permuted = rejected + (found.p < 0.05), permuted + (found.p_permutation < 0.05)
        low, high = interval(bootstrap_means(one, 400, seed=i))[:, 0]
        covered += low <= 0.2 <= high
    assert 3 <= rejected <= 30  # 15 expected; 3.8 is its standard deviation
    assert 3 <= permuted <= 30
    assert 268 <= covered <= 297  # 285 expected; the percentile interval of 200 users is a little short


@pytest.mark.parametrize(("n", "share"), [(11, 0.05), (30, 0.05), (50, 0.033), (100, 0.033), (20, 0.1), (150, 0.3)])
def test_intervals_of_few_users_cover(n: int, share: float) -> None:
    """The bootstrap alone covers the share .40, .76, .81, .85 and .89 of the time in the first five."""
    draw = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        low, high = figures((draw.random((n, 1)) < share).astype(float), ["ndcg@1"], 200, 1)["ndcg@1"]["ci95"]
        covered.append(low <= share <= high)
    assert np.mean(covered) > 0.925


def test_the_mean_rank_is_no_share() -> None:
    found = figures(np.ones((10, 2)), ["ndcg@1", "mean_rank"], 200, 1)
    assert found["mean_rank"]["ci95"] == [1, 1]
    assert found["ndcg@1"]["ci95"] == [pytest.approx(0.7225, abs=1e-3), 1]
