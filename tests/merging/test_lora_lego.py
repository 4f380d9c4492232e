"""LoRA-LEGO: clusters of rank-one units, and both reweightings, by hand."""

import math

import numpy as np
import pytest

from recmerge.merging.lora_lego import lora_lego
from recmerge.merging.parts import LoraFactors
from tests.merging.test_rules import ABSENT, random_factors
from tests.merging.tiny import merged


def unit(b: list[float], a: list[float], scaling: float = 1.0) -> LoraFactors:
    return LoraFactors(np.array([b]).T / scaling, np.array([a]), scaling)


# two units of norm 5: b = (3, 0) and (0, 3), a = (0, 4) for both
ONE, TWO = unit([3.0, 0.0], [0.0, 4.0], 2.0), unit([0.0, 3.0], [0.0, 4.0], 0.5)


def test_the_centroid_gets_its_units_norm_back() -> None:
    # b = (1.5, 1.5), a = (0, 4): squared norm 20.5, so both grow by 5 / sqrt(20.5); r = k = 1
    np.testing.assert_allclose(merged("lora_lego", [ONE, TWO], clusters=1), 25 / 20.5 * np.array([[0, 6], [0, 6]]), rtol=1e-12)


def test_weights_are_shares_of_the_centroid() -> None:
    # b = (2.25, 0.75): squared norm 5.625 + 16
    expected = 25 / 21.625 * np.array([[0, 9], [0, 3]])
    np.testing.assert_allclose(merged("lora_lego", [ONE, TWO], [3, 1], clusters=1), expected, rtol=1e-12)
    np.testing.assert_allclose(merged("lora_lego", [ONE, TWO, ABSENT], [1.5, 0.5, 7], clusters=1), expected, rtol=1e-12)
    for clusters in (1, 2):
        np.testing.assert_allclose(merged("lora_lego", [ONE, TWO], [0, 1], clusters=clusters), [[0, 0], [0, 12]], rtol=1e-12)


def test_the_output_is_scaled_by_the_root_of_r_over_k() -> None:
    # each unit its own cluster: k = 2 for adapters of rank 1
    np.testing.assert_allclose(merged("lora_lego", [ONE, TWO], clusters=2), math.sqrt(1 / 2) * np.array([[0, 12], [0, 12]]), rtol=1e-12)
    # one adapter of rank 2 in one cluster of two equal units: r = 2, k = 1
    twice = LoraFactors(np.array([[3.0, 3.0], [0, 0]]), np.array([[0.0, 4.0], [0, 4.0]]), 1.0)
    np.testing.assert_allclose(merged("lora_lego", [twice], clusters=1), math.sqrt(2) * np.array([[0, 12], [0, 0]]), rtol=1e-12)


def test_units_of_one_start_meet_again() -> None:
    # adapters whose rows of A stayed near a shared start: each cluster holds one row of every adapter
    draw = np.random.default_rng(0)
    start = draw.normal(size=(4, 50))
    factors = [LoraFactors(draw.normal(size=(30, 4)) * 0.1, start + draw.normal(size=(4, 50)) * 0.05, 1.0) for _ in range(3)]
    shuffled = [LoraFactors(f.B[:, p], f.A[p], 1.0) for f, p in zip(factors, [[0, 1, 2, 3], [2, 0, 3, 1], [3, 2, 1, 0]], strict=True)]
    found = lora_lego(shuffled, [1.0] * 3, clusters=4, keys=[5, 6, 7])
    mean_a, mean_b = sum(f.A for f in factors) / 3, sum(f.B for f in factors) / 3
    sizes = sum(np.sqrt((f.A**2).sum(axis=1) + (f.B**2).sum(axis=0)) for f in factors) / 3
    grow = sizes / np.sqrt((mean_a**2).sum(axis=1) + (mean_b**2).sum(axis=0))
    np.testing.assert_allclose(found.B @ found.A, (mean_b * grow**2) @ mean_a, rtol=1e-10)
    assert found.rank == 4


def test_units_that_cancel_and_units_of_zeros_leave_nothing() -> None:
    against = unit([-3.0, 0.0], [0.0, -4.0])
    assert merged("lora_lego", [ONE, against], clusters=1).tolist() == [[0, 0], [0, 0]]
    padded = LoraFactors(np.array([[3.0, 0.0], [0, 0]]), np.array([[0.0, 4.0], [0, 0]]), 1.0)
    found = lora_lego([padded], [1.0], clusters=2, keys=[0])
    assert found.rank == 1
    nothing = lora_lego([LoraFactors(np.zeros((2, 1)), np.zeros((1, 2)), 1.0)], [1.0], clusters=2, keys=[0])
    assert (nothing.rank, nothing.B.shape, nothing.A.shape) == (0, (2, 0), (0, 2))


@pytest.mark.parametrize("clusters", [1, 2, 5, 6, 100])
def test_the_rank_is_the_number_of_clusters_and_the_seed_repeats(clusters: int) -> None:
    factors = random_factors(3)  # ranks 1, 2 and 3
    one, two = (lora_lego(factors, [1.0] * 3, clusters=clusters, keys=[3, 1, 2]) for _ in range(2))
    assert one.rank == min(clusters, 6)
    assert np.array_equal(one.B, two.B)
    assert np.array_equal(one.A, two.A)
