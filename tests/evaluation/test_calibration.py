"""Temperatures and calibration errors against draws whose probabilities are known, and against hand fractions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmerge.evaluation.calibration import Lists, Scaling, calibration, fitted_scaling, fitted_sharpness, padded, reliability


def drawn(sharpness: float, n_users: int, seed: int) -> Lists:
    """Draw scores, and targets with the probabilities of their softmax times a sharpness."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (n_users, 10))
    chances = Lists(scores, np.zeros(n_users, np.int64)).probabilities(Scaling(sharpness))
    return Lists(scores, (rng.random((n_users, 1)) > chances.cumsum(1)).sum(1))


@pytest.mark.parametrize("true", [0.2, 1.0, 5.0])
def test_the_temperature_that_made_the_targets_is_found(true: float) -> None:
    known, asked = drawn(true, 20_000, 0), drawn(true, 20_000, 1)
    assert fitted_sharpness(known) == pytest.approx(true, rel=0.05)
    found = calibration(known, asked)
    assert found["temperature"] == pytest.approx(1 / true, rel=0.1)
    assert found["by_place"] < 0.2
    assert found["ece"] < 0.015
    assert found["log_loss"] <= found["log_loss_before"] + 1e-4
    assert found["log_loss_of_chance"] == pytest.approx(math.log(10))
    assert (found["n_fitted_on"], sum(b["n"] for b in found["bins"])) == (20_000, 20_000)
    if true != 1.0:
        assert found["ece_before"] > 3 * found["ece"]


def test_places_count_where_the_size_of_scores_tells_nothing() -> None:
    """Targets drawn by place alone, from scores whose sizes are noise that differs by user."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1, (20_000, 10)) * np.exp(3 * rng.normal(size=(20_000, 1)))
    places = 1 + (scores[:, None, :] > scores[:, :, None]).sum(-1)
    chances = places**-1.5
    targets = (rng.random((20_000, 1)) > (chances / chances.sum(1, keepdims=True)).cumsum(1)).sum(1)
    known, asked = Lists(scores[:10_000], targets[:10_000]), Lists(scores[10_000:], targets[10_000:])
    assert fitted_scaling(known, Scaling(fitted_sharpness(known))).by_place == pytest.approx(1.5, rel=0.05)
    found = calibration(known, asked)
    assert found["ece"] < 0.02 < 0.1 < found["ece_by_temperature"]
    assert found["log_loss"] < found["log_loss_by_temperature"] - 0.1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 20), st.floats(0, 5))
def test_no_other_scaling_loses_less_and_none_changes_an_order(seed: int, sharpness: float, by_place: float) -> None:
    known = drawn(1.0, 60, seed)
    fitted = fitted_scaling(known, Scaling(fitted_sharpness(known)))
    assert known.log_loss(fitted) <= known.log_loss(Scaling(sharpness, by_place)) + 1e-6
    assert fitted.sharpness >= 0
    assert fitted.by_place >= 0


def test_places_of_ties_and_of_short_lists() -> None:
    lists = Lists(padded([[3.0, 1.0, 3.0, 2.0], [5.0, 4.0]]), np.array([0, 0]))
    np.testing.assert_allclose(np.exp(-lists.features[0, :, 1]), [1.5, 4, 1.5, 3])
    np.testing.assert_allclose(np.exp(-lists.features[1, :2, 1]), [1, 2])
    assert (lists.features[1, 2:] == 0).all()
    np.testing.assert_allclose(lists.probabilities(Scaling(0.0, 1.0))[1], [2 / 3, 1 / 3, 0, 0])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_no_other_temperature_loses_less(seed: int, other: float) -> None:
    known = drawn(1.0, 60, seed)
    assert known.log_loss(Scaling(fitted_sharpness(known))) <= known.log_loss(Scaling(other)) + 1e-9


def test_scores_that_mislead_are_made_to_say_nothing() -> None:
    lists = Lists(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1, 1]))
    found = calibration(lists, lists)
    assert found["log_loss"] == pytest.approx(math.log(2), abs=1e-5)
    perfect = Lists(lists.scores, np.array([0, 0]))
    assert calibration(perfect, perfect)["log_loss"] == pytest.approx(0, abs=1e-9)


def test_hand_fractions_ties_and_unequal_lists() -> None:
    third = math.log(2)
    lists = Lists(padded([[third, 0.0], [0.0, 0.0, 0.0], [third, third, 0.0]]), np.array([0, 2, 2]))
    np.testing.assert_allclose(lists.probabilities(Scaling()), [[2 / 3, 1 / 3, 0], [1 / 3] * 3, [0.4, 0.4, 0.2]])
    assert lists.log_loss(Scaling()) == pytest.approx(-(math.log(2 / 3) + math.log(1 / 3) + math.log(0.2)) / 3)
    error, bins = reliability(lists, Scaling())
    # the first is right; of the second's three first places the target has one; the third's two first places are wrong
    assert [b["n"] for b in bins] == [1, 1, 1]
    assert [b["right"] for b in bins] == pytest.approx([1 / 3, 0, 1])
    assert error == pytest.approx((0 + 0.4 + 1 / 3) / 3)


def test_scores_of_any_size_are_no_trouble() -> None:
    lists = Lists(np.array([[-5000.0, -5200.0, -np.inf], [-1e5, -1e5, -1e5]]), np.array([1, 0]))
    assert np.isfinite(lists.log_loss(Scaling()))
    assert np.isfinite(calibration(lists, lists)["log_loss"])
