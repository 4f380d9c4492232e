"""k-means on inner products."""

from itertools import product

import numpy as np
import pytest

from recmerge.merging.k_means import k_means, shares


def inertia(points: np.ndarray, mass: np.ndarray, labels: np.ndarray) -> float:
    centres = shares(labels, mass).T @ points
    return float((mass * ((points - centres[np.unique(labels, return_inverse=True)[1]]) ** 2).sum(axis=1)).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 3])
def test_it_finds_the_best_of_all_partitions(seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    points, mass = draw.normal(size=(7, 3)), draw.uniform(0.5, 2, size=7)
    best = min(inertia(points, mass, np.array(p)) for p in product(range(k), repeat=7))
    found = k_means(points @ points.T, mass, k, key=1)
    assert sorted(set(found)) == list(range(k))
    assert inertia(points, mass, found) == pytest.approx(best)


def test_groups_far_apart_are_found() -> None:
    draw = np.random.default_rng(0)
    points = np.repeat(np.eye(6) * 10, 4, axis=0) + draw.normal(size=(24, 6)) * 0.1
    found = k_means(points @ points.T, np.ones(24), 6, key=3)
    assert [len(set(found[i : i + 4])) for i in range(0, 24, 4)] == [1] * 6
    assert len(set(found)) == 6


def test_equal_points_make_fewer_clusters_and_few_points_stay_alone() -> None:
    points = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    assert k_means(points @ points.T, np.ones(5), 3, key=0).tolist() in ([0, 1, 0, 1, 0], [1, 0, 1, 0, 1])
    assert k_means(np.eye(2), np.ones(2), 5, key=0).tolist() == [0, 1]


def test_shares_are_of_the_mass() -> None:
    np.testing.assert_allclose(shares(np.array([0, 1, 0]), np.array([3.0, 5.0, 1.0])), [[0.75, 0], [0, 1], [0.25, 0]])
