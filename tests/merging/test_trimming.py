"""Thresholds: the k-th largest magnitude, exactly, in two passes and little memory."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from recmerge.merging import dense
from recmerge.merging.parts import LoraFactors
from recmerge.merging.trimming import largest, n_kept, per_tensor, steps, whole_vectors
from tests.merging.tiny import Loose, full


@pytest.mark.parametrize(("n", "density", "k"), [(4, 0.5, 2), (10, 0.3, 3), (100, 0.29, 29), (7, 0.2, 1), (3, 0.1, 1), (5, 1.0, 5), (9, 0.999, 8)])
def test_the_whole_part_is_kept_and_never_nothing(n: int, density: float, k: int) -> None:
    assert n_kept(n, density) == k


def sample(kind: str) -> np.ndarray:
    draw = np.random.default_rng(3)
    normal = draw.normal(size=2001)
    return {
        "normal": normal,
        "few values": draw.integers(-3, 4, size=2001).astype(float),
        "wide": normal * 10.0 ** draw.integers(-44, 38, size=2001),  # down to numbers that float32 has no normal form for
        "alike": 1 + normal * 1e-6,  # one bin of the first pass
        "mostly zeros": np.where(draw.random(2001) < 0.9, 0.0, normal),
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "few values", "wide", "alike", "mostly zeros"])
@pytest.mark.parametrize("density", [1e-9, 0.05, 0.2, 0.5, 0.97, 1.0])
def test_largest_is_the_kth_of_the_sorted_magnitudes(kind: str, density: float) -> None:
    values = sample(kind)
    passes = []

    def blocks() -> Iterator[np.ndarray]:
        passes.append(1)
        yield values[:700].reshape(7, 100)
        yield values[700:].reshape(1, -1)

    found = largest(blocks, values.size, density)
    k = n_kept(values.size, density)
    magnitudes = np.sort(np.abs(values.astype(np.float32)))[::-1]
    assert found == (0.0 if k == values.size else float(magnitudes[k - 1]))
    assert len(passes) <= 2
    assert (magnitudes >= np.float32(found)).sum() >= k


def test_whole_vectors_count_every_module_and_per_tensor_each_apart() -> None:
    # 8 entries: the 4 largest are those of the first module
    adapter = Loose({"a": full([[8, -6], [5, 4]], scaling=2.0), "b": full([[3, 2], [-1, 0.5]])})
    told: list[int] = []
    assert whole_vectors([adapter], 0.5, lambda: told.append(1)) == [4.0]
    assert len(told) == steps([adapter]) == 4  # two passes over two modules
    assert per_tensor([full([[8, -6], [5, 4]]), full([[3, 2], [-1, 0.5]])], 0.5) == [6.0, 2.0]


def test_blocks_are_the_same_numbers_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    factors = [LoraFactors(draw.normal(size=(50, 3)), draw.normal(size=(3, 11)), 0.7)]
    monkeypatch.setattr(dense, "_ENTRIES", 40)
    monkeypatch.setattr(dense, "_LEAST_ROWS", 1)  # three rows
    one, two = ([b.copy() for (b,) in dense.row_blocks(factors)] for _ in range(2))
    assert len(one) == 17
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    np.testing.assert_allclose(np.concatenate(one), 0.7 * factors[0].B @ factors[0].A, rtol=1e-14)


def test_thresholds_never_hold_a_whole_task_vector() -> None:
    draw = np.random.default_rng(1)
    adapter = Loose({name: LoraFactors(draw.normal(size=(1500, 2)), draw.normal(size=(2, 1000)), 1.0) for name in "ab"})
    tracemalloc.start()
    whole_vectors([adapter], 0.2, lambda: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1500 * 1000 * 8  # one module in float64; the task vector has two
