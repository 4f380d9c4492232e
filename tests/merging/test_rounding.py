"""Factors on their way to the file: rounded once, padded, measured against what was meant, and refused when they are not that."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recmerge.errors import ArtifactError
from recmerge.lm import adapter_write
from recmerge.lm.adapter_write import AdapterLayout
from recmerge.lm.tensor_file import narrow, widen
from recmerge.merging.parts import LoraFactors, LowRank, Stacked, norm
from recmerge.merging.rounding import round_factors
from tests.merging.tiny import Q


def random_change(out: int = 40, rank: int = 3, width: int = 30) -> LowRank:
    draw = np.random.default_rng(0)
    return LowRank(draw.normal(size=(out, rank)), draw.normal(size=(rank, width)))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("out", [40, 30_000])  # one block of rows, three
def test_the_distance_is_that_of_the_dense_matrices(dtype: str, out: int) -> None:
    meant = random_change(out)
    found = round_factors(AdapterLayout({Q: (out, 30)}, 5, dtype), Q, meant)
    b, a = (widen(side, dtype).astype(np.float64) for side in found.stored)
    assert np.array_equal(b[:, :3], widen(narrow(meant.B, dtype), dtype))
    assert (b.shape, a.shape, np.abs(b[:, 3:]).max(), np.abs(a[3:]).max()) == ((out, 5), (5, 30), 0, 0)
    assert found.distance == pytest.approx(np.linalg.norm(b @ a - meant.B @ meant.A), rel=1e-5)
    np.testing.assert_allclose(found.grams.left, meant.B.T @ meant.B, rtol=1e-5, atol=1e-5 * out)
    stays = LowRank(meant.B, a[:3])  # an A that the file holds as it is
    found = round_factors(AdapterLayout({Q: (out, 30)}, 3, dtype), Q, stays)
    assert found.distance == pytest.approx(np.linalg.norm((b[:, :3] - meant.B) @ stays.A), rel=1e-5)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e-25, 1e25])
def test_tiny_and_huge_numbers_are_measured_too(size: float) -> None:
    meant = LowRank(np.array([[1.0, 1 / 3]]) * size, np.array([[1.0], [0.7]]))
    assert norm(meant) == pytest.approx(size * (1 + 0.7 / 3))
    assert 0 < round_factors(AdapterLayout({Q: (1, 1)}, 2), Q, meant).distance <= 1e-7 * norm(meant)


def test_zeros_and_numbers_that_are_stored_exactly_are_not_off() -> None:
    for meant in (LowRank(np.zeros((4, 2)), np.zeros((2, 3))), LowRank(np.full((4, 2), 0.5), np.full((2, 3), 3.0))):
        assert round_factors(AdapterLayout({Q: (4, 3)}, 2), Q, meant).distance == 0.0


def worse(values: Any, entry: tuple[int, int], step: float) -> Any:
    wrong = values.copy()
    wrong[entry] *= step
    return wrong


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        ("F32", lambda v: v * 1.001),
        ("F32", lambda v: worse(v, (2, 1), 1 + 1e-4)),  # one number of each side
        ("BF16", lambda v: worse(v, (2, 1), 1.5)),
        ("F16", lambda v: v[::-1]),
    ],
)
def test_a_wrong_rounding_is_refused(monkeypatch: pytest.MonkeyPatch, dtype: str, bad: Callable[[Any], Any]) -> None:
    layout = AdapterLayout({Q: (40, 30)}, 3, dtype)
    round_factors(layout, Q, random_change())
    monkeypatch.setattr(adapter_write, "narrow", lambda values, dtype: narrow(bad(values) if values.ndim == 2 else values, dtype))
    with pytest.raises(ArtifactError, match=f"{Q} is not what was meant"):
        round_factors(layout, Q, random_change())


@pytest.mark.parametrize("layout", [AdapterLayout({Q: (40, 30)}, 2), AdapterLayout({Q: (41, 30)}, 3), AdapterLayout({Q: (40, 29)}, 3)])
def test_other_sizes_than_the_header_says_are_refused(layout: AdapterLayout) -> None:
    with pytest.raises(ArtifactError, match="rank 3 and size 40 x 30, meant"):
        round_factors(layout, Q, random_change())


def test_a_sum_of_task_vectors_forms_its_rows_in_float64() -> None:
    draw = np.random.default_rng(1)
    factors = [
        LoraFactors(draw.normal(size=(9, r)).astype(np.float32), draw.normal(size=(r, 4)).astype(np.float32), s) for r, s in ((2, 3.0), (0, 1.0), (1, 0.7))
    ]
    found = Stacked(factors, [1 / 3, 5.0, -0.1])
    expected = np.concatenate([1.0 / 3 * 3.0 * factors[0].B.astype(float), -0.1 * 0.7 * factors[2].B.astype(float)], axis=1)
    np.testing.assert_allclose(found.B, expected, rtol=1e-15)
    assert np.array_equal(found.rows(7, 20), found.B[7:])
    assert (found.rank, found.height, found.A.dtype, found.B.dtype) == (3, 9, np.float32, np.float64)
