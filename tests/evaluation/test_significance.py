import numpy as np
import pytest

from recmerge.evaluation.significance import bootstrap_means, detectable_difference, holm, interval, paired_differences


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
    assert (found.value, found.low, found.high, found.p, found.detectable, found.n_users) == (0.0, 0.0, 0.0, 1.0, 0.0, 100)


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
