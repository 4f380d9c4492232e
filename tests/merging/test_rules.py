"""Every rule on numbers worked out by hand, at its extremes, and against peft."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recmerge.errors import ArtifactError
from recmerge.merging import METHODS
from recmerge.merging.factor import factor
from recmerge.merging.linear import linear
from recmerge.merging.parts import Dense, LoraFactors, LowRank, distance, equal_weights, inner_products, norm
from recmerge.merging.product import product
from recmerge.merging.weaverec import weaverec
from tests.merging.tiny import merged, peft_adapters, tiny_qwen2

# B A: one = [[1, 1], [0, 0]], two = [[0, 0], [2, 4]]
ONE = LoraFactors(np.array([[1.0], [0.0]]), np.array([[1.0, 1.0]]), scaling=2.0)
TWO = LoraFactors(np.array([[0.0], [2.0]]), np.array([[1.0, 2.0]]), scaling=0.5)
TWO_AT_2 = LoraFactors(TWO.B, TWO.A, scaling=2.0)
ABSENT = LoraFactors(np.zeros((2, 0)), np.zeros((0, 2)), scaling=1.0)
ALL = {name: {"density": 1.0} if "density" in METHODS[name].options else {} for name in METHODS}  # options under which nothing is left out


def dense(delta: LowRank) -> list[list[float]]:
    return (delta.B @ delta.A).tolist()


def random_factors(n: int, seed: int = 0, equal: bool = False) -> list[LoraFactors]:
    draw = np.random.default_rng(seed)
    ranks = [3] * n if equal else [1 + i for i in range(n)]
    return [LoraFactors(draw.normal(size=(7, r)), draw.normal(size=(r, 5)), 2.0 if equal else 0.5 + i) for i, r in enumerate(ranks)]


def exact(factors: Sequence[LoraFactors], weights: Sequence[float]) -> np.ndarray:
    return sum(w * f.scaling * f.B @ f.A for f, w in zip(factors, weights, strict=True))


@pytest.mark.parametrize("rule", [product, weaverec])
def test_product_by_hand(rule) -> None:
    # 0.25 * 2 * [[1,1],[0,0]] + 0.75 * 0.5 * [[0,0],[2,4]]
    found = rule([ONE, TWO], [0.25, 0.75])
    assert dense(found) == [[0.5, 0.5], [0.75, 1.5]]
    assert found.rank == 2
    assert found.A.tolist() == [[1, 1], [1, 2]]  # A as the adapters hold it


def test_product_takes_negative_weights_and_absent_modules() -> None:
    assert dense(product([ONE, TWO, ABSENT], [1.0, -1.0, 5.0])) == [[2, 2], [-1, -2]]
    assert dense(product([ONE, ONE], [1.0, -1.0])) == [[0, 0], [0, 0]]


def test_factor_by_hand() -> None:
    # B = 0.5 [1,0] + 0.5 [0,2] = [0.5, 1]; A = 0.5 [1,1] + 0.5 [1,2] = [1, 1.5]; times the shared scaling 2
    assert dense(factor([ONE, TWO_AT_2], [0.5, 0.5])) == [[1.0, 1.5], [2.0, 3.0]]


def test_factor_is_product_where_all_a_are_equal_and_weights_sum_to_one() -> None:
    shared = [LoraFactors(f.B, ONE.A, 2.0) for f in (ONE, TWO)]
    np.testing.assert_allclose(dense(factor(shared, [0.3, 0.7])), dense(product(shared, [0.3, 0.7])), rtol=1e-14)


def test_linear_by_hand_with_its_cross_terms() -> None:
    # w s = 1 and 4: B = 1 [1,0] + 2 [0,2] = [1,4]; A = 1 [1,1] + 2 [1,2] = [3,5]; wanted was [[1,1],[8,16]]
    assert dense(linear([ONE, TWO_AT_2], [0.5, 2.0])) == [[3, 5], [12, 20]]
    # the sign goes to A alone: A = [1,1] - 2 [1,2] = [-1,-3]
    assert dense(linear([ONE, TWO_AT_2], [0.5, -2.0])) == [[-1, -3], [-4, -12]]


def test_linear_of_equal_adapters_is_the_number_of_adapters_too_strong() -> None:
    np.testing.assert_allclose(dense(linear([ONE] * 3, equal_weights(3))), 3 * np.array(dense(product([ONE] * 3, equal_weights(3)))), rtol=1e-12)


@pytest.mark.parametrize(
    ("rule", "pair", "word"), [(factor, (ONE, TWO), "scaling"), (linear, None, "rank"), (factor, None, "rank"), (factor, (ONE, ABSENT), "rank")]
)
def test_rules_refuse_what_they_cannot_add(rule, pair, word: str) -> None:
    with pytest.raises(ArtifactError, match=word):
        rule(pair or random_factors(2), [0.5, 0.5])


@pytest.mark.parametrize("name", METHODS)
def test_one_adapter_at_weight_one_is_itself(name: str) -> None:
    np.testing.assert_allclose(merged(name, [TWO], [1.0], **ALL[name]), 0.5 * TWO.B @ TWO.A, rtol=1e-14)


@pytest.mark.parametrize("name", METHODS)
def test_a_weight_of_zero_leaves_an_adapter_out(name: str) -> None:
    factors = random_factors(2, equal=True)
    np.testing.assert_allclose(merged(name, factors, [1.0, 0.0], **ALL[name]), 2.0 * factors[0].B @ factors[0].A, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_order_does_not_matter(name: str) -> None:
    factors, weights = random_factors(3, equal=True), [0.2, 0.5, 0.3]
    there = merged(name, factors, weights)  # with the default options: what is trimmed or drawn does not change either
    back = merged(name, factors[::-1], weights[::-1])
    np.testing.assert_allclose(there, back, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_scale_of_one_side_may_move_to_the_other_where_the_rule_knows_products(name: str) -> None:
    # (c B)(A / c) is the same adapter; only rules on products see it so
    factors, weights = random_factors(2, equal=True), [0.5, 0.5]
    moved = [LoraFactors(factors[0].B * 10, factors[0].A / 10, 2.0), factors[1]]
    same = np.allclose(merged(name, factors, weights, **ALL[name]), merged(name, moved, weights, **ALL[name]))
    assert same == (name not in ("factor", "linear", "lora_lego"))


@pytest.mark.parametrize("name", METHODS)
def test_results_are_finite_and_of_the_kind_that_the_rule_says(name: str) -> None:
    from tests.merging.tiny import Loose, merger

    factors = random_factors(3, equal=True)
    delta = merger(name, [Loose({"m": f}) for f in factors], [0.5, 0.25, 0.25]).module("m").delta
    assert isinstance(delta, Dense if METHODS[name].full_rank else LowRank)
    assert np.isfinite(norm(delta))
    assert delta.rank <= 9


@pytest.mark.parametrize("name", [name for name in METHODS if "lambda" in METHODS[name].options])
def test_lambda_multiplies_the_result(name: str) -> None:
    factors = random_factors(3)
    np.testing.assert_allclose(merged(name, factors, lambda_=-2.5), -2.5 * merged(name, factors), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_rule_states_its_source_and_departures(name: str) -> None:
    text = METHODS[name].merge.__doc__ or ""
    assert "Source:" in text
    assert "Departures:" in text


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_product_is_the_dense_sum(n: int) -> None:
    factors = random_factors(n)
    weights = [0.7, -0.4, 1.3, 0.1][:n]
    found = product(factors, weights)
    assert found.rank == sum(range(1, n + 1))
    np.testing.assert_allclose(found.B @ found.A, exact(factors, weights), rtol=1e-12, atol=1e-12)


def test_inner_products_are_those_of_dense_task_vectors() -> None:
    factors = [*random_factors(3), LoraFactors(np.zeros((7, 0)), np.zeros((0, 5)), 1.0)]
    vectors = [(f.scaling * f.B @ f.A).ravel() for f in factors]
    np.testing.assert_allclose(inner_products(factors), [[v @ w for w in vectors] for v in vectors], rtol=1e-12, atol=1e-12)
    assert inner_products([ONE, TWO])[0].tolist() == [8.0, 0.0]  # |2 [[1,1],[0,0]]|^2; disjoint rows
    assert norm(LowRank(TWO.B, TWO.A)) == pytest.approx(math.sqrt(20))
    assert norm(Dense(np.array([[3.0, 0], [0, -4]], np.float32))) == 5.0


def test_distance_sees_differences_far_below_the_norm() -> None:
    meant = product(random_factors(2), [1.0, 1.0])
    found = LowRank(meant.B * (1 + 1e-12), meant.A)
    assert distance(found, meant) == pytest.approx(1e-12 * norm(meant), rel=1e-3)
    assert distance(meant, meant) == 0.0


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.7, 0.3], [1.0, -1.0], [-0.5, -2.0]])
def test_linear_is_pefts_own(tmp_path: Path, weights: list[float]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from recmerge.lm.adapter_file import AdapterFile
    from recmerge.merging.parts import module_factors

    tiny_qwen2().save_pretrained(tmp_path / "base")
    paths = peft_adapters(tmp_path, tmp_path / "base", [{"r": 4, "lora_alpha": 8}, {"r": 4, "lora_alpha": 2}])
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), paths[0], "a")
    model.load_adapter(paths[1], "b")
    model.add_weighted_adapter(["a", "b"], weights, "m", combination_type="linear")
    files = [AdapterFile(p) for p in paths]
    assert len(files[0].modules) == 4
    for module in files[0].modules:
        theirs = model.base_model.model.get_submodule(module).get_delta_weight("m").detach().double().numpy()
        np.testing.assert_allclose(dense(linear(module_factors(files, module), weights)), theirs, rtol=1e-4, atol=1e-5)
