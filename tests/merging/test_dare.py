"""DARE: what is dropped, what it is divided by, and on what alone the draws hang."""

from collections.abc import Sequence

import numpy as np
import pytest

from recmerge.merging import dense
from recmerge.merging.dare_linear import dare_linear
from recmerge.merging.dropping import adapter_keys, draw_key, dropped
from recmerge.merging.parts import LoraFactors
from tests.merging.test_rules import exact, random_factors
from tests.merging.test_ties import T1, T2, T3, odd_adapters
from tests.merging.tiny import Loose, full, merged, merger

NAMES = ["dare_linear", "dare_ties"]


def test_by_hand() -> None:
    # every entry is dropped, or doubled
    found = [merged("dare_linear", [T1], density=0.5, seed=s) for s in range(40)]
    assert {tuple(m.ravel()) for m in found} <= {(a, b, c, d) for a in (0, 8) for b in (0, -2) for c in (0, 6) for d in (0, 1)}
    assert len({tuple(m.ravel()) for m in found}) > 8
    assert merged("dare_linear", [T1], [3.0], density=1.0, lambda_=0.5).tolist() == [[6, -1.5], [4.5, 0.75]]


def test_ties_after_dropping_by_hand() -> None:
    # T2 negated and tenfold wins wherever it is kept: 20, -60, -50, 10 against 4, -1, 3, 0.5 and 3, -2, -7, 1
    factors, weights = [T1, T2, T3], [1.0, -10.0, 1.0]
    seen = set()
    for seed in range(20):
        one, two, three = (merged("dare_linear", [f], [w], density=0.5, seed=seed) for f, w in zip(factors, weights, strict=True))
        found = merged("dare_ties", factors, weights, density=0.5, seed=seed)
        for i in np.ndindex(2, 2):
            values = [v for v in (one[i], two[i], three[i]) if v]
            winners = [v for v in values if v * sum(values) > 0]
            assert found[i] == (sum(winners) / len(winners) if winners else 0)
            seen.add((len(values), len(winners)))
    assert seen >= {(0, 0), (1, 1), (3, 2), (3, 3)}


def test_density_one_is_the_sum_and_the_elected_mean() -> None:
    factors, weights = random_factors(3), [0.5, -2.0, 1.0]
    np.testing.assert_allclose(merged("dare_linear", factors, weights, density=1.0), exact(factors, weights), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(merged("dare_ties", factors, weights, density=1.0), merged("ties", factors, weights, density=1.0))


@pytest.mark.parametrize("density", [0.1, 0.5, 0.8])
def test_the_mean_over_seeds_is_the_exact_sum(density: float) -> None:
    factors, weights, n = [T1, T2, T3], [1.0, 0.5, -1.0], 3000
    mean = sum(merged("dare_linear", factors, weights, density=density, seed=s).astype(float) for s in range(n)) / n
    # an entry x is x / density with chance density: variance x^2 (1 / density - 1)
    variance = sum(w**2 * f.scaling**2 * (f.B @ f.A) ** 2 for f, w in zip(factors, weights, strict=True)) * (1 / density - 1)
    assert (np.abs(mean - exact(factors, weights)) < 4.5 * np.sqrt(variance / n)).all()


@pytest.mark.parametrize("density", [0.03, 0.5, 0.97])
def test_the_fraction_kept_is_the_density(density: float) -> None:
    n = 400
    found = merger("dare_linear", [Loose({"m": full(np.ones((n, n)))})] * 2, [1.0, 1.0], density=density).module("m")
    for kept in found.kept:
        assert abs(kept - density * n**2) < 4.5 * np.sqrt(n**2 * density * (1 - density))
    both = (found.delta.matrix > 1.5 / density).sum()  # the same adapter given twice is drawn twice
    assert abs(both - density**2 * n**2) < 4.5 * np.sqrt(n**2 * density**2)


def modules_of(names: Sequence[str], adapters: Sequence[dict[str, LoraFactors]], method: str, seed: int = 1) -> dict[str, np.ndarray]:
    found = merger(method, [Loose(a) for a in adapters], [1.0] * len(adapters), density=0.5, seed=seed)
    return {m: found.module(m).delta.matrix for m in names}


@pytest.mark.parametrize("method", NAMES)
def test_draws_hang_on_seed_adapter_and_module_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = odd_adapters(5)
    found = modules_of(["q", "k", "down"], adapters, method)
    for name, matrix in modules_of(["down", "q"], adapters, method).items():  # another order, one module left out
        assert np.array_equal(matrix, found[name])
    for name, matrix in modules_of(["q", "k", "down"], adapters[::-1], method).items():
        np.testing.assert_allclose(matrix, found[name], rtol=1e-6, atol=1e-7)
    monkeypatch.setattr(dense, "_ENTRIES", 60)
    monkeypatch.setattr(dense, "_LEAST_ROWS", 1)  # blocks of two to twelve rows
    for name, matrix in modules_of(["q", "k", "down"], adapters, method).items():
        np.testing.assert_allclose(matrix, found[name], rtol=1e-6, atol=1e-7)
    assert not np.array_equal(modules_of(["q"], adapters, method, seed=2)["q"], found["q"])


def test_an_adapter_is_dropped_alike_whatever_stands_beside_it() -> None:
    ones = [full(np.full((20, 31), v)) for v in (1.0, 100.0)]
    alone = merged("dare_linear", ones[:1], density=0.5)
    beside = merged("dare_linear", ones, density=0.5)
    assert np.array_equal(alone, beside % 200)


def test_keys() -> None:
    assert adapter_keys(["a", "b", "a"]) == ["a-0", "b-0", "a-1"]
    keys = {draw_key(s, a, m) for s in (0, 1) for a in ("a", "b") for m in ("q", "k")}
    assert len(keys) == 8
    assert all(0 <= k < 2**128 for k in keys)


def test_the_raw_stream_is_the_one_that_numpy_promises_to_keep() -> None:
    # Philox 4x64-10 of key 7, counter 1: the first 64-bit word's lower half decides on the first entry
    first = int(np.random.Philox(key=7).random_raw())
    chance = (first % 2**32) / 2**32
    for density, kept in ((chance * 0.999, False), (min(chance * 1.001, 1.0), True)):
        assert bool(dropped(density, [7])(0, np.ones((1, 1)))[0, 0]) == kept


def test_a_tiny_density_stays_unbiased() -> None:
    found = dare_linear([full(np.ones((1, 1)))], [1.0], density=1e-12, keys=[1])
    assert found.matrix[0, 0] in (0.0, np.float32(2.0**32))
