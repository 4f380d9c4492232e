"""Sign conflict by hand, at its extremes, and on a grid of large modules."""

import numpy as np
import pytest

from recmerge.merging.conflict import sign_conflict
from recmerge.merging.latency import linear_latency
from recmerge.merging.parts import LoraFactors
from tests.merging.tiny import full


def test_by_hand() -> None:
    one, two = full([[1.0, -2.0], [0.0, 3.0]], scaling=2.0), full([[4.0, 1.0], [5.0, 1.0]], scaling=-1.0)
    found = sign_conflict([one, two])
    # entries that are zero in neither: 1 and 4, -2 and 1, 3 and 1 of the same task vectors as given, whatever the scalings
    assert found.plain.tolist() == [[0, pytest.approx(1 / 3)], [pytest.approx(1 / 3), 0]]
    assert found.weighted[0, 1] == pytest.approx(2 / (4 + 2 + 3))
    assert found.n_entries == 4


def test_a_negative_scaling_turns_the_signs() -> None:
    one, two = full([[1.0, -2.0]]), full([[1.0, -2.0]])
    assert sign_conflict([one, two]).plain[0, 1] == 0.0
    turned = LoraFactors(two.B, two.A, -1.0)
    found = sign_conflict([one, turned])
    assert (found.plain[0, 1], found.weighted[0, 1]) == (1.0, 1.0)


def test_what_is_nowhere_has_no_conflict() -> None:
    one, absent = full([[1.0, -2.0]]), LoraFactors(np.zeros((1, 0), np.float32), np.zeros((0, 2), np.float32), 1.0)
    found = sign_conflict([one, absent, full([[0.0, 0.0]])])
    assert np.isnan(found.plain[np.triu_indices(3, 1)]).all()
    assert np.isnan(found.weighted[np.triu_indices(3, 1)]).all()
    assert np.diag(found.plain).tolist() == [0, 0, 0]


def test_weighted_conflict_follows_from_the_exact_task_vectors() -> None:
    draw = np.random.default_rng(0)
    factors = [LoraFactors(draw.normal(size=(300, 3)), draw.normal(size=(3, 400)), 1.5) for _ in range(3)]  # 120,000 entries: all are looked at
    dense = [1.5 * f.B @ f.A for f in factors]
    found = sign_conflict(factors)
    assert found.n_entries == 120_000
    for i in range(3):
        for j in range(3):
            products = dense[i] * dense[j]
            assert found.plain[i, j] == pytest.approx((products < 0).mean())
            assert found.weighted[i, j] == pytest.approx(-products[products < 0].sum() / np.abs(products).sum())


def test_large_modules_are_looked_at_on_a_grid() -> None:
    draw = np.random.default_rng(0)
    factors = [LoraFactors(draw.normal(size=(900, 8)), draw.normal(size=(8, 50_000)), 1.0) for _ in range(2)]
    found, again = sign_conflict(factors), sign_conflict(factors)
    assert found.n_entries == 96 * 96
    assert np.array_equal(found.plain, again.plain)
    assert found.plain[0, 1] == pytest.approx(0.5, abs=0.05)  # random ones: half
    narrow = sign_conflict([LoraFactors(f.B[:, :8], f.A[:, :4], 1.0) for f in (LoraFactors(draw.normal(size=(50_000, 8)), draw.normal(size=(8, 9)), 1.0),) * 2])
    assert (narrow.n_entries, narrow.plain[0, 1]) == (96 * 4, 0.0)


@pytest.mark.parametrize(
    ("shapes", "timed"),
    [
        ([(8, 4), (6, 6)], (6, 6)),  # the largest
        ([(2**13, 2**11), (2**12, 2**10)], (2**12, 2**10)),  # of those that are small enough
        ([(2**13, 2**11)], (2**11, 2**11)),  # or with its rows cut
    ],
)
def test_latency_is_measured_of_one_layer(shapes: list[tuple[int, int]], timed: tuple[int, int]) -> None:
    found = linear_latency(shapes, 4)
    assert ((found["out"], found["in"]), found["rank"], found["tokens"]) == (timed, 4, 1)
    assert found["base_ms"] > 0
    assert found["merged_ms"] > 0
    assert linear_latency([(6, 6)], 0)["rank"] == 0
