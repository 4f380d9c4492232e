"""What FDSA adds to SASRec: a second stream, of attributes."""

import numpy as np
import pytest
import torch
from sequences import batch, lively

from recmerge.rankers.fdsa import FdsaModel
from recmerge.rankers.sasrec import SasRecSettings

SIZES = {"n_items": 6, "n_attributes": 4, "attributes_per_item": 3}
TABLE = np.asarray([[0, 0, 0], [1, 2, 3], [1, 0, 0], [2, 4, 0], [0, 0, 0], [3, 0, 0], [4, 1, 0]])


def model(**settings: object) -> FdsaModel:
    made = FdsaModel(SIZES, SasRecSettings(width=4, heads=2, inner=8, max_history=6, **settings))  # type: ignore[arg-type]
    made.items.attributes.furnish(TABLE)
    lively(made)
    return made


def test_attributes_are_weighed_by_a_softmax_over_those_that_an_item_has() -> None:
    items = model().items
    vectors, (inner, _, outer) = items.attributes.embedding.weight.detach().numpy(), items.weigh
    first, bias, second = (weights.detach().numpy() for weights in (inner.weight, inner.bias, outer.weight[0]))
    found = items.features(torch.tensor([[0, 1, 2, 3]]))[0].detach().numpy()
    for row, item in enumerate((0, 1, 2, 3)):
        has = vectors[TABLE[item][TABLE[item] > 0]]
        odds = np.exp(np.maximum(has @ first.T + bias, 0) @ second)
        assert found[row] == pytest.approx((odds / odds.sum()) @ has if len(has) else np.zeros(4), abs=1e-6)


def test_items_and_attributes_are_read_apart_and_joined_by_a_layer() -> None:
    fdsa, asked = model(), batch([1, 2, 3, 5])
    left, right = fdsa.encoder.streams  # type: ignore[union-attr, misc]
    known = asked.items > 0
    streams = torch.cat([left(fdsa.items.embedding(asked.items), known), right(fdsa.items.features(asked.items), known)], -1)
    expected = streams @ fdsa.encoder.join.weight.T + fdsa.encoder.join.bias  # type: ignore[union-attr, operator]
    assert fdsa.expectations(asked).detach() == pytest.approx(expected.detach(), abs=1e-6)
    assert fdsa.users(asked).detach() == pytest.approx(expected[:, -1].detach(), abs=1e-6)


def test_an_attribute_moves_what_is_expected_and_no_item_vector() -> None:
    fdsa, asked = model(), batch([1, 2, 3, 5])
    before, table = fdsa.users(asked).detach(), fdsa.scored().detach().clone()
    changed = TABLE.copy()
    changed[3] = [1, 4, 0]
    fdsa.items.attributes.furnish(changed)
    assert (fdsa.users(asked) - before).abs().max() > 1e-3
    assert torch.equal(fdsa.scored(), table)


def test_what_comes_later_moves_nothing_before() -> None:
    fdsa = model()
    one, other = (fdsa.expectations(batch([1, 2, third, 5])) for third in (3, 6))
    assert one[:, :2].detach() == pytest.approx(other[:, :2].detach(), abs=1e-6)
    assert (one[:, 2] - other[:, 2]).abs().max() > 1e-3


def test_padding_changes_nothing() -> None:
    fdsa = model()
    alone, padded = fdsa.expectations(batch([1, 2, 3])), fdsa.expectations(batch([1, 2, 3], width=6))
    assert padded[:, -2:].detach() == pytest.approx(alone.detach(), abs=1e-6)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_every_weight_learns(loss: str) -> None:
    fdsa = model(loss=loss)
    fdsa.loss(batch([1, 2, 3, 5, 6, 4], [3, 2, 1])).backward()
    assert [name for name, weights in fdsa.named_parameters() if weights.grad is None or not weights.grad.any()] == []
