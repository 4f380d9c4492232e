"""Choose and fit a fused model on validation events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recmerge.evaluation.fusion.features import Array, Standard, candidate_features, feature_names
from recmerge.evaluation.fusion.logit import fit_logit, log_loss
from recmerge.evaluation.fusion.network import Network, fit_network

Model = Literal["auto", "logit", "network"]
_FOLDS = 5
MIN_USERS = 2 * _FOLDS
_WORTH_IT = 1e-3  # nats by which a network must be better than the plain logit
_L2 = 1e-3


@dataclass(frozen=True)
class Fusion:
    """A fitted fused model.

    Args:
        rankers: R names.
        model: Which was fitted: logit or network.
        standard: The features' scale.
        weights: (F,) of the logit; the network's start.
        networks: One per fold, averaged; empty for the logit.
        held_out: Log-loss of held-out validation users by model, and `uniform`, that of guessing, in nats.
        n_users: Validation users it was fitted on.
    """

    rankers: tuple[str, ...]
    model: str
    standard: Standard
    weights: Array
    networks: tuple[Network, ...]
    held_out: dict[str, float]
    n_users: int

    def score(self, scores: Array) -> Array:
        """Fuse scores (B, C, R) into (B, C), higher is better."""
        features = self.standard(candidate_features(scores))
        if self.networks:
            fused: Array = np.mean([network(features) for network in self.networks], axis=0)
            return fused
        result: Array = features @ self.weights
        return result

    def about(self) -> dict[str, Any]:
        """Return what a report says of it; the weights are those of the logit, on features of deviation 1."""
        names = feature_names(self.rankers)
        return {
            "rankers": list(self.rankers),
            "model": self.model,
            "n_users": self.n_users,
            "held_out_log_loss": self.held_out,
            "weights": {name: float(w) for name, w in zip(names, self.weights, strict=True)},
        }


def fit_fusion(rankers: Sequence[str], scores: Array, target: np.ndarray, model: Model = "auto", seed: int = 42) -> Fusion:
    """Fit a fused model.

    Args:
        rankers: R names.
        scores: (B, C, R) their scores of validation users' candidates; NaN where not named.
        target: (B,) place of the validation purchase among the candidates.
        model: logit, network, or auto: the network where it loses less on held-out users (five folds) by more than a thousandth of a nat.
        seed: Of the folds and the network.

    Returns:
        The model. Nothing of the test events has been seen.

    Raises:
        ValueError: Fewer users than `MIN_USERS`.
    """
    if len(target) < MIN_USERS:
        raise ValueError(f"{len(target)} users are too few to fit on, at least {MIN_USERS} are needed")
    raw = candidate_features(scores)
    standard = Standard.of(raw)
    features = standard(raw)
    fold = np.random.default_rng(seed).permutation(len(target)) % _FOLDS
    losses = {"uniform": float(np.log(scores.shape[1]))}
    networks: list[Network] = []
    if model != "network":
        losses["logit"] = _held_out(features, target, fold, lambda f: _linear(fit_logit(features[fold != f], target[fold != f], _L2)))
    weights = fit_logit(features, target, _L2)
    if model != "logit":
        networks = _networks(features, target, fold, seed)
        losses["network"] = _held_out(features, target, fold, lambda f: networks[f])
    chosen = "network" if networks and losses["network"] < losses.get("logit", np.inf) - _WORTH_IT else "logit"
    return Fusion(tuple(rankers), chosen, standard, weights, tuple(networks) if chosen == "network" else (), losses, len(target))


def _networks(features: Array, target: np.ndarray, fold: np.ndarray, seed: int) -> list[Network]:
    """Fit one network per fold, without that fold's users; those of the next tell when to stop."""
    import torch

    from recmerge.lm.cores import one_core_each

    def fit(f: int) -> Network:
        mine = fold != f
        start = fit_logit(features[mine], target[mine], _L2)
        return fit_network(features[mine], target[mine], fold[mine] == (f + 1) % _FOLDS, start, seed + f)

    with one_core_each(torch.device("cpu")) as side_by_side:
        return list(side_by_side(fit, range(_FOLDS)))


def _linear(weights: Array) -> Callable[[Array], Array]:
    return lambda features: features @ weights


def _held_out(features: Array, target: np.ndarray, fold: np.ndarray, fitted: Callable[[int], Callable[[Array], Array]]) -> float:
    """Return the mean log-loss of every user under the model that was fitted without it."""
    parts = [log_loss(fitted(f)(features[fold == f]), target[fold == f]) * (fold == f).sum() for f in range(_FOLDS)]
    return float(np.sum(parts) / len(target))
