"""One score of a title's log-likelihood: as it is, per token, or less what the title has without any history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from recmerge.evaluation.metrics import expected_metric

Normalization = Literal["sum", "mean", "pmi"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Likelihoods:
    """What a language model says of candidates.

    Args:
        sums: (B, C) log-likelihood of each title's tokens and end token given the prompt, in nats.
        n_tokens: (B, C) how many tokens these are.
        priors: (B, C) the same log-likelihood given the prompt of somebody who bought nothing; None where it was not asked for.
    """

    sums: Floats
    n_tokens: Floats
    priors: Floats | None = None

    def normalized(self, how: Normalization) -> Floats:
        """Return scores (B, C).

        Args:
            how: `sum`: the log-likelihood, the probability that exactly this title follows. `mean`: per token, so that long titles do not lose by their
                length. `pmi`: pointwise mutual information with the history, so that what is likely for everybody does not win by that.

        Returns:
            The scores, in nats (per token).
        """
        if how == "mean":
            return self.sums / self.n_tokens
        if how == "pmi":
            assert self.priors is not None
            return self.sums - self.priors
        return self.sums


def gathered(parts: Iterable[tuple[Sequence[int], Likelihoods]], n: int) -> Likelihoods:
    """Put batches together.

    Args:
        parts: Rows, and what was found of them; together all of 0 to n - 1, all with priors.
        n: How many rows there are.

    Returns:
        One of all rows.
    """
    rows, found = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(rows))
    assert len(order) == n
    sums, n_tokens = (np.concatenate([getattr(part, name) for part in found])[order] for name in ("sums", "n_tokens"))
    return Likelihoods(sums, n_tokens, np.concatenate([part.priors for part in found])[order])


def best_normalization(found: Likelihoods, targets: npt.ArrayLike) -> tuple[Normalization, Mapping[str, float]]:
    """Choose by users whose answers are known.

    Args:
        found: Of validation users.
        targets: (B,) the column of each user's target.

    Returns:
        The one of the highest mean reciprocal rank, on equality the first of `NORMALIZATIONS`; and that measure of all.
    """
    own = np.asarray(targets)[:, None]
    measured = dict[str, float]()
    for how in NORMALIZATIONS:
        scores = found.normalized(how)
        target = np.take_along_axis(scores, own, 1)
        measured[how] = float(expected_metric("mrr", (scores > target).sum(1), (scores == target).sum(1) - 1).mean())
    return max(NORMALIZATIONS, key=lambda how: measured[how]), measured
