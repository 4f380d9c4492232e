"""What a fused model sees of a candidate: each ranker's score, freed of its scale in several ways."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recmerge.evaluation.metrics import mean_places

Array = npt.NDArray[np.float64]
VIEWS = ("z", "log", "place", "top")


@dataclass(frozen=True)
class Standard:
    """How features are brought to one scale.

    Args:
        mean: (F,) of the fitting users' candidates.
        scale: (F,) their standard deviation; 1 for a feature that never varies.
    """

    mean: Array
    scale: Array

    @classmethod
    def of(cls, features: Array) -> "Standard":
        """Measure features (B, C, F)."""
        flat = features.reshape(-1, features.shape[-1])
        scale = flat.std(0)
        return cls(flat.mean(0), np.where(scale > 0, scale, 1.0))

    def __call__(self, features: Array) -> Array:
        """Return (B, C, F) with mean 0 and deviation 1 where measured."""
        return (features - self.mean) / self.scale


def feature_names(rankers: Sequence[str]) -> list[str]:
    """Name the features of R rankers, F = 4 R, in the order of `candidate_features`."""
    return [f"{ranker}:{view}" for ranker in rankers for view in VIEWS]


def candidate_features(scores: Array) -> Array:
    """Describe every candidate by every ranker's opinion of it.

    Per ranker: `z`, the score less its mean over the user's candidates, by their deviation (0 where all are equal); `log`,
    sign(s) log(1 + |s|), which keeps how sure a count or likelihood is; `place`, one over the expected place among the
    candidates; `top`, the share of the first place that it holds (ties share it).

    Args:
        scores: (B, C, R) of R rankers, higher is better; NaN where a ranker did not name the candidate, which counts as
            less than its lowest score.

    Returns:
        (B, C, 4 R).
    """
    known = _filled(scores)
    centred = known - known.mean(1, keepdims=True)
    deviation = known.std(1, keepdims=True)
    z = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-12)
    best = known == known.max(1, keepdims=True)
    views = (z, np.sign(known) * np.log1p(np.abs(known)), 1 / np.moveaxis(mean_places(np.moveaxis(known, 1, -1)), -1, 1), best / best.sum(1, keepdims=True))
    return np.stack(views, axis=-1).reshape(*scores.shape[:2], -1)


def _filled(scores: Array) -> Array:
    """Put what was not named one below the user's lowest score; a user for whom nothing was named gets zeros."""
    lowest = np.where(np.isnan(scores), np.inf, scores).min(1, keepdims=True)
    floor = np.where(np.isinf(lowest), 0.0, lowest - 1)
    return np.where(np.isnan(scores), floor, scores)
