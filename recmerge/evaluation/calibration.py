"""Are a ranker's scores probabilities? One number fitted on validation users makes them so, as far as one number can.

Source: Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks": temperature scaling, and the expected calibration error over
bins of equal width. Ours: ties share the first place, and users may have lists of unequal length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
N_BINS = 15
_LEAST, _MOST = 1e-6, 1e6  # inverse temperatures that are looked at
_HALVINGS = 60


@dataclass(frozen=True)
class Lists:
    """What was scored.

    Args:
        scores: (U, C) of each candidate; -inf behind the end of a shorter list.
        targets: (U,) the target's column.
    """

    scores: Floats
    targets: npt.NDArray[np.int64]

    def probabilities(self, sharpness: float) -> Floats:
        """Return (U, C): the softmax of the scores times `sharpness`, the inverse of the temperature."""
        there = np.isfinite(self.scores)
        scaled = np.where(there, np.where(there, self.scores, 0.0) * sharpness, -np.inf)
        weights = np.exp(scaled - scaled.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    def log_loss(self, sharpness: float) -> float:
        """Return the mean of -ln of the target's probability, in nats."""
        with np.errstate(divide="ignore"):
            found = -np.log(np.take_along_axis(self.probabilities(sharpness), self.targets[:, None], 1))
        return float(np.minimum(found, -np.log(np.finfo(np.float64).tiny)).mean())


def fitted_sharpness(known: Lists) -> float:
    """Return the inverse temperature that loses least on users whose targets are known.

    The log-loss is convex in it, so the place where its slope changes sign is found by bisection.

    Args:
        known: Validation users.

    Returns:
        From 1e-6 (the scores tell nothing) to 1e6.
    """
    scores = np.where(np.isfinite(known.scores), known.scores, 0.0)
    own = np.take_along_axis(scores, known.targets[:, None], 1)[:, 0]

    def slope(sharpness: float) -> float:
        return float(((known.probabilities(sharpness) * scores).sum(1) - own).mean())

    low, high = np.log(_LEAST), np.log(_MOST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def reliability(lists: Lists, sharpness: float) -> tuple[float, list[dict[str, float]]]:
    """Compare how sure the first place is with how often it is right.

    Args:
        lists: Users with their targets.
        sharpness: Inverse temperature.

    Returns:
        (expected calibration error: the mean over users of |right - sure| of their bin, bins that hold users: n, sure, right).
    """
    found = lists.probabilities(sharpness)
    sure = found.max(1)
    first = found == sure[:, None]
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
        JSON-like: `temperature`, `n_fitted_on`, and before and after it `ece` and `log_loss`; `bins` after it; `log_loss_of_chance`.
    """
    sharpness = fitted_sharpness(known)
    before, after = (reliability(asked, by) for by in (1.0, sharpness))
    return {
        "temperature": 1 / sharpness,
        "n_fitted_on": len(known.targets),
        "ece": after[0],
        "ece_before": before[0],
        "log_loss": asked.log_loss(sharpness),
        "log_loss_before": asked.log_loss(1.0),
        "log_loss_of_chance": float(np.log(np.isfinite(asked.scores).sum(1)).mean()),
        "bins": after[1],
    }


def padded(lists: Sequence[Sequence[float]]) -> Floats:
    """Return lists of unequal length as one array, -inf behind their ends."""
    found = np.full((len(lists), max(map(len, lists), default=0)), -np.inf)
    for row, values in zip(found, lists, strict=True):
        row[: len(values)] = values
    return found
