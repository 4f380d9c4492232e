from math import log

import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.rankers.sasrec import SasRecModel, SasRecSettings
from recmerge.rankers.sequential.losses import draw_negatives
from recmerge.rankers.sequential.transformer import TransformerEncoder


def model(**changed: object) -> SasRecModel:
    return lively(SasRecModel(9, SasRecSettings(width=8, max_history=5, inner=16, **changed)))  # type: ignore[return-value]


def test_no_expectation_moves_with_a_later_purchase() -> None:
    one, other = (model().expectations(batch([1, 2, third, 4, 5])) for third in (3, 7))
    assert ((one - other).abs().amax(-1)[0] > 1e-6).tolist() == [False, False, True, True]


def test_padding_changes_nothing() -> None:
    one, other = (model().users(batch([1, 2, 3], width=width)) for width in (2, 5))
    torch.testing.assert_close(one, other)


def test_the_softmax_by_hand() -> None:
    made, asked = model(), batch([1, 2, 3], [4, 5])
    scores = made.expectations(asked) @ made.items.table().T
    picked = [scores[0, 0].softmax(-1)[2], scores[0, 1].softmax(-1)[3], scores[1, 1].softmax(-1)[5]]
    assert value(made.loss(asked)) == pytest.approx(value(-torch.stack(picked).log().mean()), rel=1e-5)


def test_the_binary_loss_by_hand() -> None:
    made, asked = model(loss="bce"), batch([1, 2, 3], [4, 5])
    torch.manual_seed(3)
    drawn = draw_negatives(9, 1, asked.whole())[..., 0]
    torch.manual_seed(3)
    found = made.loss(asked)
    expected, table = made.expectations(asked), made.items.table()
    total = torch.zeros(())
    for row, place, target in ((0, 0, 2), (0, 1, 3), (1, 1, 5)):
        wrong = drawn[row, place + 1]
        assert wrong not in asked.whole()[row]
        total = total - functional.logsigmoid(expected[row, place] @ table[target]) - functional.logsigmoid(-expected[row, place] @ table[wrong])
    assert value(found) == pytest.approx(value(total / 3), rel=1e-5)


def test_a_model_that_knows_loses_nothing() -> None:
    made, asked = model(), batch([1, 2, 3])
    expected = 100 * functional.one_hot(asked.targets, 10).float()
    made.items.table = lambda: torch.eye(10)  # type: ignore[method-assign]
    made.expectations = lambda _: expected  # type: ignore[method-assign]
    assert value(made.loss(asked)) == pytest.approx(0, abs=1e-6)
    made.by_pairs = True
    assert value(made.loss(asked)) == pytest.approx(log(2), abs=1e-6)  # drawn items score 0


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_every_part_learns(loss: str) -> None:
    made, asked = model(loss=loss), batch([1, 2, 3, 4, 5, 6])
    made.loss(asked).backward()
    assert [name for name, weights in made.named_parameters() if weights.grad is None or not weights.grad.any()] == []


def test_sizes_are_the_settings() -> None:
    encoder = SasRecModel(9, SasRecSettings(blocks=3, heads=4, inner=20, max_history=7)).encoder
    assert isinstance(encoder, TransformerEncoder)
    assert len(encoder.blocks) == 3
    assert encoder.blocks[0].attention.heads == 4
    assert encoder.blocks[0].forward_layer.widen.weight.shape == (20, 64)
    assert encoder.positions.shape == (7, 64)
    assert encoder.causal
