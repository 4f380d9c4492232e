"""Weighted k-means on inner products, deterministic for a key."""

import numpy as np
from numpy.typing import NDArray

from recmerge.merging.parts import Matrix

_RESTARTS = 10
_MAX_ITERATIONS = 100
_SAME = 1e-12  # squared distance below which two points are one, relative to the largest squared norm

Labels = NDArray[np.intp]


def k_means(gram: Matrix, mass: NDArray[np.float64], k: int, key: int) -> Labels:
    """Cluster N points by their inner products alone: the best of ten runs of Lloyd's algorithm from k-means++ starts.

    Working on inner products makes a run cost N^2 k, whatever the points' length.

    Source: Arthur and Vassilvitskii 2007 (k-means++); Lloyd 1982.
    Departures: draws come from numpy's raw Philox stream, so equal input gives equal clusters in every version.

    Args:
        gram: (N, N) inner products.
        mass: (N,) weights of the points, positive.
        k: The clusters wanted, at least 1.
        key: Of the draws.

    Returns:
        (N,) cluster of each point, 0, 1, 2 ... without gaps; fewer than k clusters where fewer points differ.
    """
    n = len(mass)
    if n <= k:
        return np.arange(n)
    stream = np.random.Philox(key=key)
    best, least = np.zeros(n, np.intp), np.inf
    for _ in range(_RESTARTS):
        labels, inertia = _lloyd(gram, mass, _start(gram, mass, k, stream))
        if inertia < least * (1 - _SAME):
            best, least = labels, inertia
    return np.unique(best, return_inverse=True)[1]


def _start(gram: Matrix, mass: NDArray[np.float64], k: int, stream: np.random.Philox) -> Matrix:
    """Choose points as first centroids, each with a chance that grows with its squared distance to those chosen."""
    norms = np.diag(gram)
    chosen: list[int] = []
    chance = mass.copy()
    while len(chosen) < k and chance.any():
        edges = np.cumsum(chance)
        draw = int(stream.random_raw()) / 2**64
        chosen.append(int(np.searchsorted(edges, draw * edges[-1], side="right")))
        apart = np.min(norms[:, None] - 2 * gram[:, chosen] + norms[chosen], axis=1)
        chance = np.where(apart > _SAME * norms.max(), mass * apart, 0.0)
    return np.eye(len(mass))[:, chosen]


def _lloyd(gram: Matrix, mass: NDArray[np.float64], share: Matrix) -> tuple[Labels, float]:
    """Return clusters and the weighted sum of squared distances, from centroids given as shares (N, k) of the points."""
    labels = np.full(len(mass), -1)
    apart = np.zeros(len(mass))
    for _ in range(_MAX_ITERATIONS):
        distances = np.diag(gram)[:, None] - 2 * gram @ share + np.einsum("nk,nm,mk->k", share, gram, share)
        new = distances.argmin(axis=1)
        apart = np.maximum(distances.min(axis=1), 0.0)
        if np.array_equal(new, labels):
            break
        labels = new
        share = shares(labels, mass)
    return labels, float(mass @ apart)


def shares(labels: Labels, mass: NDArray[np.float64]) -> Matrix:
    """Return (N, k): each point's share of its cluster's mass, so that points.T @ shares are the centroids; empty clusters are left out."""
    members = (labels[:, None] == np.unique(labels)) * mass[:, None]
    return members / members.sum(axis=0)
