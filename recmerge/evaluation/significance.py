"""How sure a mean over users is, and whether two systems differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from recmerge.evaluation.metrics import MEAN_RANK

Floats = npt.NDArray[np.float64]

_FEW = 200  # users, below which the bootstrap alone is too sure
_CELLS = 4_000_000  # counts held at once: 32 MB


@dataclass(frozen=True)
class Difference:
    """A paired difference of means over the same users.

    Args:
        value: Mean of (system - baseline).
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided, of the bootstrap, from 2/(S+1) for S resamples up to 1.
        p_permutation: Two-sided, of the permutation test, from 1/(S+1) for S draws up to 1.
        detectable: The smallest true difference that this many users would show with 80 % power at 5 %; inf where no user differs from another.
        n_users: Users compared.
    """

    value: float
    low: float
    high: float
    p: float
    p_permutation: float
    detectable: float
    n_users: int


def bootstrap_means(values: Floats, n_samples: int = 2000, seed: int = 42) -> Floats:
    """Resample users with replacement and return the mean of each resample.

    Users with equal values are interchangeable, so a resample draws how often each distinct row of values occurs (one
    multinomial): the same distribution as drawing users one by one, at a cost that does not grow with their number.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapters 6 and 13.
    Departures: none.

    Args:
        values: (U, M) one row per user, one column per metric.
        n_samples: Resamples S.
        seed: Equal seeds give equal resamples.

    Returns:
        (S, M); a row's M means come from the same users.

    Raises:
        ValueError: There is no user.
    """
    if len(values) == 0:
        raise ValueError("no users to resample")
    rows, counts = np.unique(values, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    share = counts / counts.sum()
    size = max(1, _CELLS // len(rows))
    parts = [rng.multinomial(len(values), share, size=min(size, n_samples - done)) @ rows for done in range(0, n_samples, size)]
    return np.concatenate(parts) / len(values)


def bootstrap_seeds(values: Floats, n_samples: int = 2000, seed: int = 42) -> Floats:
    """Resample seeds and users with replacement, apart, and return the mean of each resample.

    Source: Efron and Tibshirani (1993), chapter 8: two crossed samples, each resampled.
    Departures: none. With few seeds the interval still leans on the users: three seeds say little about a fourth.

    Args:
        values: (S, U, M) one layer per seed of training, the same users in the same order.
        n_samples: Resamples R.
        seed: Equal seeds give equal resamples of equal values; to compare two systems, resample their differences.

    Returns:
        (R, M).

    Raises:
        ValueError: There is no seed or no user.
    """
    n_seeds, n_users, n_metrics = values.shape
    if not n_seeds or not n_users:
        raise ValueError("no seeds or no users to resample")
    by_seed = bootstrap_means(values.transpose(1, 0, 2).reshape(n_users, -1), n_samples, seed).reshape(-1, n_seeds, n_metrics)
    shares = np.random.default_rng(seed + 1).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_samples) / n_seeds
    means: Floats = np.einsum("rsm,rs->rm", by_seed, shares)
    return means


def interval(means: Floats, confidence: float = 0.95) -> Floats:
    """Return the percentile interval of bootstrap means.

    Args:
        means: (S, M) from `bootstrap_means`.
        confidence: From 0 to 1.

    Returns:
        (2, M): lower and upper ends.
    """
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0)


def figures(values: npt.NDArray[np.float64], names: Sequence[str], n_samples: int, seed: int) -> dict[str, Any]:
    """Return means with 95 % bootstrap intervals.

    Resamples of few users never show what none of these had: below 200 users an interval of a share reaches at least as far as Wilson's for a yes or no
    of that mean, which no other share from 0 to 1 varies more than.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    Departures: beside the bootstrap, and for means of shares too.

    Args:
        values: (U, M); from 0 to 1 but those of the mean rank.
        names: M metric names.
        n_samples: Bootstrap resamples.
        seed: Of the resamples.

    Returns:
        `{"value", "ci95": [low, high]}` by metric name.
    """
    low, high = interval(bootstrap_means(values, n_samples, seed))
    if len(values) < _FEW:
        is_share = np.asarray([name != MEAN_RANK for name in names])
        least, most = wilson(values.mean(0).clip(0, 1), len(values))
        low, high = np.where(is_share, np.minimum(low, least), low), np.where(is_share, np.maximum(high, most), high)
    return {name: {"value": float(values[:, m].mean()), "ci95": [float(low[m]), float(high[m])]} for m, name in enumerate(names)}


def wilson(shares: Floats, n: int, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's score interval.

    Args:
        shares: Observed, from 0 to 1; any shape.
        n: Of how many.
        confidence: From 0 to 1.

    Returns:
        Lower and upper ends, of that shape.

    >>> [round(float(end), 3) for end in wilson(np.asarray(0.0), 10)]
    [0.0, 0.278]
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, scale = (shares + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n)
    half = scale * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def paired_differences(system: Floats, baseline: Floats, n_samples: int = 2000, seed: int = 42) -> list[Difference]:
    """Compare two systems on the same users, metric by metric.

    The p value doubles the smaller share of resamples on either side of zero, each count raised by one, so that it is
    never 0 and two equal systems get 1.

    Source: Koehn (2004), "Statistical significance tests for machine translation evaluation"; the added one is
    Davison and Hinkley (1997), section 4.2.
    Departures: none.

    Args:
        system: (U, M) one row per user.
        baseline: (U, M) the same users in the same order.
        n_samples: Resamples S.
        seed: Of the resamples.

    Returns:
        M differences.

    Raises:
        ValueError: The shapes differ or there is no user.
    """
    if system.shape != baseline.shape:
        raise ValueError(f"shapes {system.shape} and {baseline.shape} cannot be paired")
    delta = system - baseline
    means = bootstrap_means(delta, n_samples, seed)
    low, high = interval(means)
    p = two_sided(means)
    permuted = permutation_test(delta, n_samples, seed)
    detectable = detectable_difference(delta)
    return [
        Difference(
            value=float(delta[:, m].mean()),
            low=float(low[m]),
            high=float(high[m]),
            p=float(p[m]),
            p_permutation=float(permuted[m]),
            detectable=float(detectable[m]),
            n_users=len(delta),
        )
        for m in range(delta.shape[1])
    ]


def permutation_test(delta: Floats, n_samples: int = 2000, seed: int = 42) -> Floats:
    """Test whether two systems could be exchanged, user by user.

    Were they alike, each user's difference could as well have had the other sign: the signs are drawn anew, S times, and it is
    counted how often the mean is as far from zero as the one seen. Users with differences of one size are interchangeable, so one binomial
    draw per size replaces their coins.

    Source: Fisher (1935), "The Design of Experiments", section 21; for ranked lists Smucker, Allan and Carterette (CIKM 2007).
    Departures: one is added to both counts, so that p is never 0 (Phipson and Smyth, 2010).

    Args:
        delta: (U, M) differences per user.
        n_samples: Draws S.
        seed: Of the draws.

    Returns:
        (M,) two-sided p values.
    """
    p = np.ones(delta.shape[1])
    for m in range(delta.shape[1]):
        rng = np.random.default_rng(seed)  # the same for each metric: its p does not hang on which others stand beside it
        sizes, counts = np.unique(np.abs(delta[:, m]), return_counts=True)
        step = max(1, _CELLS // len(sizes))
        sums = [(2 * rng.binomial(counts, 0.5, (min(step, n_samples - done), len(sizes))) - counts) @ sizes for done in range(0, n_samples, step)]
        seen = abs(float(delta[:, m].sum()))
        p[m] = (1 + int((np.abs(np.concatenate(sums)) >= seen * (1 - 1e-12)).sum())) / (n_samples + 1)
    return p


def two_sided(means: Floats) -> Floats:
    """Return (M,) two-sided p values of resampled differences (S, M): twice the smaller share beyond zero, counts raised by one."""
    below, above = (means <= 0).sum(axis=0), (means >= 0).sum(axis=0)
    p: Floats = np.minimum(1.0, 2 * (np.minimum(below, above) + 1) / (len(means) + 1))
    return p


def detectable_difference(delta: Floats, alpha: float = 0.05, power: float = 0.8) -> Floats:
    """Return the smallest true mean difference that this many users would show.

    Args:
        delta: (U, M) differences per user.
        alpha: Two-sided level of the test.
        power: Wanted chance to see the difference.

    Returns:
        (M,): (z(1 - alpha/2) + z(power)) times the standard error; inf where no two users differ, which tells nothing of others.
    """
    if len(delta) < 2:
        return np.full(delta.shape[1], np.inf)
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    error = delta.std(axis=0, ddof=1) / np.sqrt(len(delta))
    return np.where(error > 0, z * error, np.inf)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for having made several comparisons.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    Departures: none.

    Args:
        p_values: From 0 to 1.

    Returns:
        Adjusted values in the same order, each at least as large.

    >>> holm([0.04, 0.01])
    [0.04, 0.02]
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, p_values[i] * (len(p_values) - step)))
        adjusted[i] = running
    return adjusted
