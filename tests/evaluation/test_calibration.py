"""Temperatures and calibration errors against draws whose probabilities are known, and against hand fractions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recmerge.evaluation.calibration import Lists, calibration, fitted_sharpness, padded, reliability


def drawn(sharpness: float, n_users: int, seed: int) -> Lists:
    """Draw scores, and targets with the probabilities of their softmax times a sharpness."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 2, (n_users, 10))
    chances = Lists(scores, np.zeros(n_users, np.int64)).probabilities(sharpness)
    return Lists(scores, (rng.random((n_users, 1)) > chances.cumsum(1)).sum(1))


@pytest.mark.parametrize("true", [0.2, 1.0, 5.0])
def test_the_temperature_that_made_the_targets_is_found(true: float) -> None:
    known, asked = drawn(true, 20_000, 0), drawn(true, 20_000, 1)
    assert fitted_sharpness(known) == pytest.approx(true, rel=0.05)
    found = calibration(known, asked)
    assert found["temperature"] == pytest.approx(1 / true, rel=0.05)
    assert found["ece"] < 0.015
    assert found["log_loss"] <= found["log_loss_before"] + 1e-4
    assert found["log_loss_of_chance"] == pytest.approx(math.log(10))
    assert (found["n_fitted_on"], sum(b["n"] for b in found["bins"])) == (20_000, 20_000)
    if true != 1.0:
        assert found["ece_before"] > 3 * found["ece"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 20))
def test_no_other_temperature_loses_less(seed: int, other: float) -> None:
    known = drawn(1.0, 60, seed)
    assert known.log_loss(fitted_sharpness(known)) <= known.log_loss(other) + 1e-9


def test_scores_that_mislead_are_made_to_say_nothing() -> None:
    lists = Lists(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1, 1]))
    found = calibration(lists, lists)
    assert found["log_loss"] == pytest.approx(math.log(2), abs=1e-5)
    perfect = Lists(lists.scores, np.array([0, 0]))
    assert calibration(perfect, perfect)["log_loss"] == pytest.approx(0, abs=1e-9)


def test_hand_fractions_ties_and_unequal_lists() -> None:
    third = math.log(2)
    lists = Lists(padded([[third, 0.0], [0.0, 0.0, 0.0], [third, third, 0.0]]), np.array([0, 2, 2]))
    np.testing.assert_allclose(lists.probabilities(1.0), [[2 / 3, 1 / 3, 0], [1 / 3] * 3, [0.4, 0.4, 0.2]])
    assert lists.log_loss(1.0) == pytest.approx(-(math.log(2 / 3) + math.log(1 / 3) + math.log(0.2)) / 3)
    error, bins = reliability(lists, 1.0)
    # the first is right; of the second's three first places the target has one; the third's two first places are wrong
    assert [b["n"] for b in bins] == [1, 1, 1]
    assert [b["right"] for b in bins] == pytest.approx([1 / 3, 0, 1])
    assert error == pytest.approx((0 + 0.4 + 1 / 3) / 3)


def test_scores_of_any_size_are_no_trouble() -> None:
    lists = Lists(np.array([[-5000.0, -5200.0, -np.inf], [-1e5, -1e5, -1e5]]), np.array([1, 0]))
    assert np.isfinite(lists.log_loss(1.0))
    assert np.isfinite(calibration(lists, lists)["log_loss"])
