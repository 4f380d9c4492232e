from math import exp, log

import pytest
import torch
from sequences import batch, lively, value

from recmerge.rankers.gru4rec import Gru4RecModel, Gru4RecSettings, bpr_max


def model(**changed: object) -> Gru4RecModel:
    return lively(Gru4RecModel(9, Gru4RecSettings(width=6, hidden=7, max_history=5, **changed)))  # type: ignore[return-value]


def test_expectations_are_those_of_the_gates_written_out() -> None:
    """Update and reset gates and candidate as in the paper, step by step, without biases."""
    made = model()
    inward, inner = (weights.view(3, 7, -1) for weights in (made.encoder.recurrent.weight_ih_l0, made.encoder.recurrent.weight_hh_l0))
    state = torch.zeros(7)
    for item, found in zip([1, 2, 3], made.expectations(batch([1, 2, 3, 4]))[0], strict=True):
        read = made.items.table()[item]
        reset = torch.sigmoid(inward[0] @ read + inner[0] @ state)
        update = torch.sigmoid(inward[1] @ read + inner[1] @ state)
        candidate = torch.tanh(inward[2] @ read + reset * (inner[2] @ state))
        state = (1 - update) * candidate + update * state
        torch.testing.assert_close(found, made.encoder.outward(state), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_padding_leaves_the_state_alone(layers: int) -> None:
    made = model(layers=layers)
    one, other = (made.expectations(batch([1, 2, 3], width=width))[:, -2:] for width in (2, 5))
    torch.testing.assert_close(one, other)


def test_no_expectation_moves_with_a_later_purchase() -> None:
    one, other = (model().expectations(batch([1, 2, third, 4, 5])) for third in (3, 7))
    assert ((one - other).abs().amax(-1)[0] > 1e-6).tolist() == [False, False, True, True]


def test_dropout_is_of_what_is_read() -> None:
    made, asked = model(dropout=0.99), batch([1, 2, 3])
    kept = made.expectations(asked)
    made.train()
    torch.manual_seed(0)
    assert not torch.allclose(made.expectations(asked), kept)


def test_the_softmax_by_hand() -> None:
    made, asked = model(), batch([1, 2, 3], [4, 5])
    scores = made.expectations(asked) @ made.items.table().T
    picked = [scores[0, 0].softmax(-1)[2], scores[0, 1].softmax(-1)[3], scores[1, 1].softmax(-1)[5]]
    assert value(made.loss(asked)) == pytest.approx(value(-torch.stack(picked).log().mean()), rel=1e-5)


def test_bpr_max_by_hand() -> None:
    """Wrong scores log 1 and log 3 have weights 1/4 and 3/4; sigmoids of log 3 and 0 are 3/4 and 1/2."""
    found = bpr_max(torch.tensor([log(3)]), torch.tensor([[0.0, 9.0, log(3)]]), torch.tensor([[False, True, False]]), 2.0)
    assert value(found) == pytest.approx(-log(1 / 4 * 3 / 4 + 3 / 4 * 1 / 2) + 2 * 3 / 4 * log(3) ** 2)
    assert value(bpr_max(torch.tensor([60.0, 60.0]), torch.zeros(2, 5), torch.zeros(2, 5, dtype=torch.bool), 1.0)) == pytest.approx(0, abs=1e-6)
    assert value(bpr_max(torch.tensor([-200.0]), torch.zeros(1, 5), torch.zeros(1, 5, dtype=torch.bool), 1.0)) == pytest.approx(200)  # no logarithm of nothing
    assert value(bpr_max(torch.tensor([0.0]), torch.tensor([[1.0]]), torch.tensor([[False]]), 0.0)) == pytest.approx(log(1 + exp(1)))
    assert value(bpr_max(torch.tensor([0.0]), torch.tensor([[0.0]]), torch.tensor([[True]]), 0.0)) == pytest.approx(log(2))  # nothing else is left


@pytest.mark.parametrize("negatives", [0, 4])
def test_bpr_max_of_a_batch(negatives: int) -> None:
    made, asked = model(loss="bpr_max", negatives=negatives, score_penalty=0.5), batch([1, 2, 3], [4, 5])
    torch.manual_seed(5)
    others = torch.randint(10, (4,)) if negatives else torch.arange(10)
    torch.manual_seed(5)
    found = made.loss(asked)
    scores, total = made.expectations(asked) @ made.items.table().T, 0.0
    for row, place, target in ((0, 0, 2), (0, 1, 3), (1, 1, 5)):
        wrong, right = scores[row, place, others[others != target]], scores[row, place, target]
        weights = wrong.softmax(0)
        total += value(-(weights * torch.sigmoid(right - wrong)).sum().log() + 0.5 * (weights * wrong**2).sum())
    assert value(found) == pytest.approx(total / 3, rel=1e-4)


@pytest.mark.parametrize("loss", ["softmax", "bpr_max"])
def test_every_part_learns(loss: str) -> None:
    made = model(loss=loss)
    made.loss(batch([1, 2, 3, 4, 5, 6])).backward()
    assert [name for name, weights in made.named_parameters() if weights.grad is None or not weights.grad.any()] == []
