"""Fused rankers: the views of a score by hand, the logit against its own definition, and what only a network sees."""

import numpy as np
import pytest

from recmerge.evaluation.fusion.features import Standard, candidate_features, feature_names
from recmerge.evaluation.fusion.fitting import MIN_USERS, fit_fusion
from recmerge.evaluation.fusion.logit import fit_logit, log_loss, softmax


def test_the_views_of_a_score_by_hand() -> None:
    scores = np.array([[[4.0], [1.0], [1.0], [2.0]]])
    z, log, place, top = candidate_features(scores)[0].T
    deviation = np.sqrt((4 + 1 + 1 + 0) / 4)
    assert z == pytest.approx(np.array([2, -1, -1, 0]) / deviation)
    assert log == pytest.approx(np.log([5, 2, 2, 3]))
    assert place == pytest.approx([1, 1 / 3.5, 1 / 3.5, 1 / 2])
    assert top.tolist() == [1, 0, 0, 0]
    assert feature_names(["a", "b"])[3:5] == ["a:top", "b:z"]


def test_a_list_without_an_opinion_is_flat() -> None:
    z, log, place, top = candidate_features(np.full((1, 4, 1), -3.0))[0].T
    assert z.tolist() == [0, 0, 0, 0]
    assert log == pytest.approx([-np.log(4)] * 4)
    assert place.tolist() == [1 / 2.5] * 4
    assert top.tolist() == [1 / 4] * 4


def test_what_was_not_named_is_below_all_that_was() -> None:
    named = candidate_features(np.array([[[0.5], [np.nan], [1.0]]]))
    assert named[0, :, 2].tolist() == [1 / 2, 1 / 3, 1]
    nothing = candidate_features(np.full((1, 3, 1), np.nan))
    assert np.isfinite(nothing).all()
    assert nothing[0, :, 0].tolist() == [0, 0, 0]


def test_views_do_not_depend_on_the_candidates_order() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 7, 2))
    order = np.random.default_rng(1).permutation(7)
    assert candidate_features(scores)[:, order] == pytest.approx(candidate_features(scores[:, order]))


def test_a_feature_that_never_varies_stays_finite() -> None:
    features = np.dstack([np.ones((2, 3)), np.arange(6.0).reshape(2, 3)])
    scaled = Standard.of(features)(features)
    assert scaled[:, :, 0].tolist() == [[0] * 3] * 2
    assert scaled[:, :, 1].std() == pytest.approx(1)


def test_the_logit_of_one_feature_and_two_candidates() -> None:
    # three of four users buy the candidate whose feature is larger by one: with no penalty the weight is log 3
    features = np.tile(np.array([[[1.0], [0.0]]]), (4, 1, 1))
    weights = fit_logit(features, np.array([0, 0, 0, 1]), l2=1e-12)
    assert weights == pytest.approx([np.log(3)], abs=1e-6)
    assert softmax(features @ weights)[0] == pytest.approx([3 / 4, 1 / 4])
    assert log_loss(features @ weights, np.array([0, 0, 0, 1])) == pytest.approx(-(3 * np.log(3 / 4) + np.log(1 / 4)) / 4)


def test_the_logit_finds_the_weights_that_made_the_choices() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(4000, 5, 3)), np.array([2.0, -1.0, 0.0])
    target = (features @ truth + rng.gumbel(size=(4000, 5))).argmax(1)
    assert fit_logit(features, target, l2=1e-6) == pytest.approx(truth, abs=0.15)


def test_a_heavy_penalty_leaves_nothing() -> None:
    features = np.random.default_rng(0).normal(size=(50, 4, 2))
    assert np.abs(fit_logit(features, features[:, :, 0].argmax(1), l2=1e6)).max() < 1e-5


def test_separable_choices_end_too() -> None:
    features = np.random.default_rng(0).normal(size=(60, 4, 1))
    weights = fit_logit(features, features[:, :, 0].argmax(1), l2=1e-3)
    assert np.isfinite(weights).all()
    assert weights[0] > 3


def _choices(n_users: int, seed: int, together: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two rankers, and choices by the larger sum, or by the sum of scores of like sign that no weighted sum knows."""
    scores = np.random.default_rng(seed).normal(size=(n_users, 6, 2))
    value = scores[:, :, 0] * scores[:, :, 1] if together else scores.sum(-1)
    return scores, value.argmax(1)


def test_fusion_beats_its_parts_on_unseen_users() -> None:
    scores, target = _choices(400, 0, together=False)
    fusion = fit_fusion(["a", "b"], scores, target, "logit")
    unseen, wanted = _choices(400, 1, together=False)
    fused = (fusion.score(unseen).argmax(1) == wanted).mean()
    assert fused > 0.85
    assert fused > max((unseen[:, :, r].argmax(1) == wanted).mean() for r in range(2)) + 0.2


def test_auto_takes_the_network_where_only_it_sees_the_pattern() -> None:
    scores, target = _choices(1500, 0, together=True)
    fusion = fit_fusion(["a", "b"], scores, target, "auto", seed=3)
    assert fusion.model == "network"
    assert fusion.held_out["network"] < fusion.held_out["logit"] - 0.3
    assert fusion.held_out["uniform"] == pytest.approx(np.log(6))
    unseen, wanted = _choices(400, 1, together=True)
    assert (fusion.score(unseen).argmax(1) == wanted).mean() > 0.6


def test_auto_takes_the_logit_where_the_sum_is_all() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 5, 1))
    target = (scores[:, :, 0] + rng.gumbel(size=(300, 5))).argmax(1)
    assert set(fit_fusion(["a"], scores, target, "auto").held_out) == {"uniform", "logit", "network"}
    assert fit_fusion(["a"], scores, target, "logit").networks == ()


def test_equal_seeds_fit_equal_networks() -> None:
    scores, target = _choices(120, 0, together=True)
    one, two, other = (fit_fusion(["a", "b"], scores, target, "network", seed=s).score(scores) for s in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


def test_too_few_users() -> None:
    scores, target = _choices(MIN_USERS - 1, 0, together=False)
    with pytest.raises(ValueError, match="too few to fit on"):
        fit_fusion(["a", "b"], scores, target)
