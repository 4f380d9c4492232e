"""A conditional logit: the probability that a user buys a candidate is the softmax of a weighted sum of its features."""

import numpy as np

from recmerge.evaluation.fusion.features import Array

_STEPS = 50
_TOLERANCE = 1e-8  # of the gradient's largest entry


def fit_logit(features: Array, target: np.ndarray, l2: float) -> Array:
    """Find the weights of highest penalised likelihood, by Newton's method.

    The objective, the users' mean log-likelihood less l2 / 2 times the squared weights, is strictly concave, so the result
    depends on nothing else.

    Args:
        features: (B, C, F) of B users' candidates.
        target: (B,) place of what was bought among the candidates.
        l2: Above 0.

    Returns:
        (F,) weights.

    Source:
        McFadden, 1974, "Conditional logit analysis of qualitative choice behavior".
    """
    n_users, _, n_features = features.shape
    weights = np.zeros(n_features)
    bought = features[np.arange(n_users), target].mean(0)
    value = _objective(features, target, weights, l2)
    for _ in range(_STEPS):
        shares = softmax(features @ weights)
        expected = np.einsum("bc,bcf->bf", shares, features)
        gradient = bought - expected.mean(0) - l2 * weights
        if np.abs(gradient).max() < _TOLERANCE:
            break
        second = np.einsum("bc,bcf,bcg->fg", shares, features, features, optimize=True) / n_users - expected.T @ expected / n_users
        step = np.linalg.solve(second + l2 * np.eye(n_features), gradient)
        size = 1.0
        while size > 1e-6:  # a full step may overshoot far from the optimum
            tried = _objective(features, target, weights + size * step, l2)
            if tried >= value:
                break
            size /= 2
        weights, value = weights + size * step, max(tried, value)
    return weights


def softmax(scores: Array) -> Array:
    """Return probabilities (B, C) over each user's candidates."""
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    result: Array = shifted / shifted.sum(1, keepdims=True)
    return result


def log_loss(scores: Array, target: np.ndarray) -> float:
    """Return the mean nats by which scores (B, C) miss what was bought."""
    shifted = scores - scores.max(1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(target)), target]).mean())


def _objective(features: Array, target: np.ndarray, weights: Array, l2: float) -> float:
    return -log_loss(features @ weights, target) - l2 / 2 * float(weights @ weights)
