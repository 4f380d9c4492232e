"""TIES on numbers worked out by hand, and against a plain dense reference."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from recmerge.errors import ArtifactError
from recmerge.merging.election import elect_and_average
from recmerge.merging.parts import LoraFactors
from recmerge.merging.ties import ties
from tests.merging.tiny import Loose, full, merged, merger

T1, T2, T3 = full([[4, -1], [3, 0.5]]), full([[-2, 6], [5, -1]], scaling=2.0), full([[3, -2], [-7, 1]], scaling=0.5)
# trimmed to two entries each: [[4,0],[3,0]], [[0,6],[5,0]], [[3,0],[-7,0]]


def test_by_hand() -> None:
    # (4+3)/2; 6 alone; 3+5-7 > 0 elects plus, so (3+5)/2; nothing
    assert merged("ties", [T1, T2, T3], density=0.5).tolist() == [[3.5, 6], [4, 0]]


def test_the_published_default_keeps_a_fifth() -> None:
    # the whole part of 0.2 * 4 is 0, so the largest one: 4, 6 and -7
    assert merged("ties", [T1, T2, T3]).tolist() == [[4, 6], [-7, 0]]


def test_weights_vote_and_count() -> None:
    assert merged("ties", [T1, T2, T3], [1, 1, 2], density=0.5).tolist() == [[5, 6], [-14, 0]]  # (4+6)/2; 3+5-14 < 0
    assert merged("ties", [T1, T2, T3], [1, 1, 0], density=0.5).tolist() == [[4, 6], [4, 0]]
    assert merged("ties", [T1, T2, T3], [1, 1, -1], density=0.5).tolist() == [[4, 6], [5, 0]]  # 4 against -3; (3+5+7)/3


def test_density_one_is_election_and_mean_alone() -> None:
    # 4-2+3; -1+6-2; 3+5-7; 0.5-1+1
    assert merged("ties", [T1, T2, T3], density=1.0).tolist() == [[3.5, 6], [4, 0.75]]


def test_equal_entries_are_all_kept_and_counted() -> None:
    found = merger("ties", [Loose({"m": full([[2, -2], [2, 1]])}), Loose({"m": T1})], [1.0, 1.0], density=0.25).module("m")
    assert found.delta.matrix.tolist() == [[3, -2], [2, 0]]  # 4 and 2; three entries of magnitude 2 where one was asked for
    assert found.kept == (3, 1)


def test_masses_that_cancel_leave_nothing() -> None:
    assert elect_and_average([np.array([[2.0, 1.0]]), np.array([[-2.0, -3.0]])]).tolist() == [[0, -3]]


def test_trim_by_whole_vector_and_per_tensor_differ() -> None:
    one = Loose({"big": full([[8, -6], [5, 4]]), "small": full([[3, 2], [-1, 0.5]])})
    whole, apart = (merger("ties", [one], [1.0], density=0.5, trim=t) for t in ("whole", "per_tensor"))
    assert whole.module("big").delta.matrix.tolist() == [[8, -6], [5, 4]]
    assert whole.module("small").delta.matrix.tolist() == [[0, 0], [0, 0]]
    assert apart.module("big").delta.matrix.tolist() == [[8, -6], [0, 0]]
    assert apart.module("small").delta.matrix.tolist() == [[3, 2], [0, 0]]


SHAPES = {"q": (13, 7), "k": (5, 7), "down": (7, 29)}


def odd_adapters(seed: int) -> list[dict[str, LoraFactors]]:
    draw = np.random.default_rng(seed)

    def factors(module: str, rank: int) -> LoraFactors:
        out, width = SHAPES[module]
        return LoraFactors(draw.normal(size=(out, rank)), draw.normal(size=(rank, width)), float(draw.uniform(0.1, 3)))

    lists = [("q", "k", "down"), ("q", "down"), ("k", "down"), ("q", "k", "down")]
    return [{m: factors(m, 1 + 2 * i if m != "down" else 3) for m in modules} for i, modules in enumerate(lists)]


def reference(adapters: Sequence[Mapping[str, LoraFactors]], weights: Sequence[float], density: float, whole: bool, lam: float) -> dict[str, np.ndarray]:
    """TIES as one would write it down, all in memory."""
    trimmed: list[dict[str, np.ndarray]] = []
    for adapter in adapters:
        deltas = {m: f.scaling * f.B @ f.A for m, f in adapter.items()}

        def threshold(values: np.ndarray) -> float:
            return np.sort(np.abs(values))[::-1][max(1, int(density * values.size)) - 1]

        limit = threshold(np.concatenate([d.ravel() for d in deltas.values()]))
        trimmed.append({m: np.where(np.abs(d) >= (limit if whole else threshold(d.ravel())), d, 0) for m, d in deltas.items()})
    result = {}
    for module, shape in SHAPES.items():
        stack = np.stack([w * t.get(module, np.zeros(shape)) for t, w in zip(trimmed, weights, strict=True)])
        agree = (np.sign(stack) == np.sign(stack.sum(axis=0))) & (stack != 0)
        result[module] = lam * (stack * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trim", ["whole", "per_tensor"])
@pytest.mark.parametrize(("density", "weights"), [(0.2, [1, 1, 1, 1]), (0.37, [1, -0.5, 0, 2]), (1.0, [1, 1, 1, 1])])
def test_random_adapters_against_the_dense_reference(seed: int, trim: str, density: float, weights: list[float]) -> None:
    adapters = odd_adapters(seed)
    expected = reference(adapters, weights, density, trim == "whole", 0.7)
    found = merger("ties", [Loose(a) for a in adapters], weights, density=density, trim=trim, lambda_=0.7)
    for module in reversed(SHAPES):
        np.testing.assert_allclose(found.module(module).delta.matrix, expected[module], rtol=1e-6, atol=1e-12)


def test_a_result_beyond_float32_is_refused() -> None:
    with pytest.raises(ArtifactError, match="float32"):
        ties([full([[1e30, 1], [1, 1]])], [1e30], thresholds=[0.0])
