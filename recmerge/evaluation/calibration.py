"""Are a ranker's scores probabilities? Two numbers fitted on validation users make them so, as far as two numbers can.

Source: Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks": temperature scaling, and the expected calibration error over
bins of equal width. Ours: a weight of the place beside the temperature, for scores whose order says more than their size, as a title's likelihood, most of
which is its length; ties share the first place; users may have lists of unequal length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recmerge.evaluation.metrics import mean_places

Floats = npt.NDArray[np.float64]
N_BINS = 15
_LEAST, _MOST = 1e-6, 1e6  # inverse temperatures that are looked at
_HALVINGS = 60
_STEPS = 50
_TOLERANCE = 1e-9  # of the gradient's largest entry


@dataclass(frozen=True)
class Scaling:
    """How scores become probabilities: the softmax of `sharpness` times the score less `by_place` times the log of the place.

    Both are at least 0, so that no order changes.

    Args:
        sharpness: The inverse of the temperature.
        by_place: What the place counts.
    """

    sharpness: float = 1.0
    by_place: float = 0.0


@dataclass(frozen=True)
class Lists:
    """What was scored.

    Args:
        scores: (U, C) of each candidate; -inf behind the end of a shorter list.
        targets: (U,) the target's column.
    """

    scores: Floats
    targets: npt.NDArray[np.int64]

    @cached_property
    def features(self) -> Floats:
        """(U, C, 2): scores, and less the log of the place among the user's candidates, of tied ones the middle of theirs; 0 behind the end of a list."""
        there = np.isfinite(self.scores)
        return np.where(there[..., None], np.stack([np.where(there, self.scores, 0.0), -np.log(mean_places(self.scores))], -1), 0.0)

    def probabilities(self, scaling: Scaling) -> Floats:
        """Return (U, C)."""
        logits = np.where(np.isfinite(self.scores), self.features @ np.array([scaling.sharpness, scaling.by_place]), -np.inf)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def log_loss(self, scaling: Scaling) -> float:
        """Return the mean of -ln of the target's probability, in nats."""
        with np.errstate(divide="ignore"):
            found = -np.log(np.take_along_axis(self.probabilities(scaling), self.targets[:, None], 1))
        return float(np.minimum(found, -np.log(np.finfo(np.float64).tiny)).mean())


def fitted_sharpness(known: Lists) -> float:
    """Return the inverse temperature that loses least on users whose targets are known; see `_best`.

    Args:
        known: Validation users.

    Returns:
        From 1e-6 (the scores tell nothing) to 1e6.
    """
    return _best(known, 0)


def fitted_scaling(known: Lists, alone: Scaling) -> Scaling:
    """Return the two numbers that lose least, at least 0 each, on users whose targets are known.

    The log-loss is convex in them: Newton's method finds its minimum, and where that has a number below 0, it lies where that one is 0.

    Args:
        known: Validation users.
        alone: The best temperature alone, see `fitted_sharpness`.

    Returns:
        The scaling.
    """
    both = _newton(known, alone)
    others = [alone, Scaling(0.0, _best(known, 1))] + ([both] if both.sharpness >= 0 and both.by_place >= 0 else [])
    return min(others, key=known.log_loss)


def _best(known: Lists, feature: int) -> float:
    """Return the weight of one feature alone that loses least: where the slope of the convex log-loss changes sign, by bisection."""
    values = known.features[..., feature]
    own = np.take_along_axis(values, known.targets[:, None], 1)[:, 0]

    def slope(weight: float) -> float:
        scaling = Scaling(weight) if feature == 0 else Scaling(0.0, weight)
        return float(((known.probabilities(scaling) * values).sum(1) - own).mean())

    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _newton(known: Lists, start: Scaling) -> Scaling:
    """Go from `start` to the two numbers that lose least, of either sign."""
    size = np.abs(known.features[..., 0]).max() or 1.0
    features = known.features / np.array([size, 1.0])
    own = np.take_along_axis(features, known.targets[:, None, None], 1)[:, 0].mean(0)
    weights = np.array([start.sharpness * size, start.by_place])

    def scaling(of: Floats) -> Scaling:
        return Scaling(float(of[0] / size), float(of[1]))

    loss = known.log_loss(start)
    for _ in range(_STEPS):
        shares = known.probabilities(scaling(weights))
        expected = np.einsum("uc,ucf->uf", shares, features)
        slope = expected.mean(0) - own
        if np.abs(slope).max() < _TOLERANCE:
            break
        bend = np.einsum("uc,ucf,ucg->fg", shares, features, features, optimize=True) / len(shares) - expected.T @ expected / len(shares)
        step = np.linalg.lstsq(bend, -slope, rcond=None)[0]
        part = next((p for p in 0.5 ** np.arange(20) if known.log_loss(scaling(weights + p * step)) < loss), None)
        if part is None:
            break
        weights = weights + part * step
        loss = known.log_loss(scaling(weights))
    return scaling(weights)


def reliability(lists: Lists, scaling: Scaling) -> tuple[float, list[dict[str, float]]]:
    """Compare how sure the first place is with how often it is right.

    Args:
        lists: Users with their targets.
        scaling: Of the scores.

    Returns:
        (expected calibration error: the mean over users of |right - sure| of their bin, bins that hold users: n, sure, right).
    """
    found = lists.probabilities(scaling)
    sure = found.max(1)
    best = lists.scores.max(1, keepdims=True)
    first = lists.scores == best
    right = np.take_along_axis(first, lists.targets[:, None], 1)[:, 0] / first.sum(1)
    places = np.minimum((sure * N_BINS).astype(np.int64), N_BINS - 1)
    inside = [places == b for b in range(N_BINS) if (places == b).any()]
    bins = [{"n": int(here.sum()), "sure": float(sure[here].mean()), "right": float(right[here].mean())} for here in inside]
    return sum(b["n"] * abs(b["right"] - b["sure"]) for b in bins) / len(sure), bins


def calibration(known: Lists, asked: Lists) -> dict[str, Any]:
    """Fit on some users and measure on others.

    Args:
        known: Validation users.
        asked: The users that are evaluated.

    Returns:
        JSON-like: `temperature` (None: the scores' size tells nothing) and `by_place` of the fitted scaling, `n_fitted_on`; `ece` and `log_loss` after it,
        as they are before any (`_before`), and by the best temperature alone (`_by_temperature`); `bins` after it; `log_loss_of_chance`.
    """
    alone = Scaling(fitted_sharpness(known))
    scaling = fitted_scaling(known, alone)
    kinds = {"": scaling, "_before": Scaling(), "_by_temperature": alone}
    found = {kind: reliability(asked, by) for kind, by in kinds.items()}
    return {
        "temperature": 1 / scaling.sharpness if scaling.sharpness else None,
        "by_place": scaling.by_place,
        "n_fitted_on": len(known.targets),
        **{f"ece{kind}": error for kind, (error, _) in found.items()},
        **{f"log_loss{kind}": asked.log_loss(by) for kind, by in kinds.items()},
        "log_loss_of_chance": float(np.log(np.isfinite(asked.scores).sum(1)).mean()),
        "bins": found[""][1],
    }


def padded(lists: Sequence[Sequence[float]]) -> Floats:
    """Return lists of unequal length as one array, -inf behind their ends."""
    found = np.full((len(lists), max(map(len, lists), default=0)), -np.inf)
    for row, values in zip(found, lists, strict=True):
        row[: len(values)] = values
    return found
