"""Magnitude pruning, then a weighted sum."""

import numpy as np
import pytest

from tests.merging.test_rules import exact, random_factors
from tests.merging.test_ties import T1, T2, T3
from tests.merging.tiny import Loose, full, merged, merger


def test_by_hand() -> None:
    # [[4,0],[3,0]] + [[0,6],[5,0]] + [[3,0],[-7,0]]
    assert merged("magnitude_prune", [T1, T2, T3], density=0.5).tolist() == [[7, 6], [1, 0]]
    assert merged("magnitude_prune", [T1, T2, T3], [1, 0.5, -1], density=0.5, lambda_=2.0).tolist() == [[2, 6], [25, 0]]


def test_density_one_is_the_weighted_sum() -> None:
    factors, weights = random_factors(3), [0.5, -2.0, 1.0]
    np.testing.assert_allclose(merged("magnitude_prune", factors, weights, density=1.0), exact(factors, weights), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("trim", "kept"), [("whole", [(4,), (0,)]), ("per_tensor", [(2,), (2,)])])
def test_entries_kept_are_counted_per_module(trim: str, kept: list[tuple[int]]) -> None:
    one = Loose({"big": full([[8, -6], [5, 4]]), "small": full([[3, 2], [-1, 0.5]])})
    found = merger("magnitude_prune", [one], [1.0], density=0.5, trim=trim)
    assert [found.module(m).kept for m in ("big", "small")] == kept
