from math import exp, log, sqrt

import pytest
import torch
from sequences import batch

from recmerge.rankers.sequential.losses import at_questions, binary_cross_entropy, draw_negatives, full_softmax, info_nce, pair_loss, softmax_loss


def test_questions_are_picked_out() -> None:
    expected = torch.arange(12.0).view(2, 3, 2)
    found, targets = at_questions(expected, torch.tensor([[0, 4, 5], [0, 0, 6]]))
    assert found.tolist() == [[2, 3], [4, 5], [10, 11]]
    assert targets.tolist() == [4, 5, 6]


def test_softmax_by_hand() -> None:
    table = torch.tensor([[0.0], [log(2)], [log(5)]])
    expected = torch.tensor([[1.0], [0.0]])
    loss = full_softmax(expected, table, torch.tensor([2, 1]))
    assert float(loss) == pytest.approx((-log(5 / 8) - log(1 / 3)) / 2)


def test_softmax_and_its_gradient_are_those_of_torch() -> None:
    torch.manual_seed(0)
    expected, table, targets = torch.randn(300, 8), torch.randn(50, 8), torch.randint(1, 50, (300,))
    grads = []
    for loss in (full_softmax, lambda e, t, y: torch.nn.functional.cross_entropy(e @ t.T, y)):
        leaves = [expected.clone().requires_grad_(), table.clone().requires_grad_()]
        value = loss(*leaves, targets)
        value.backward()
        grads.append([value.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_softmax_over_drawn_items_is_right_on_average() -> None:
    torch.manual_seed(0)
    expected, table, targets = torch.randn(40, 4) / 4, torch.randn(200, 4) / 4, torch.randint(1, 200, (40,))
    whole = float(softmax_loss(expected, table, targets))
    assert whole == pytest.approx(float(full_softmax(expected, table, targets)))
    drawn = [float(softmax_loss(expected, table, targets, 100)) for _ in range(100)]
    assert len(set(drawn)) > 1
    assert sum(drawn) / len(drawn) == pytest.approx(whole, abs=0.02)
    assert float(softmax_loss(expected, table, targets, 199)) == whole


def test_negatives_are_what_the_row_does_not_hold() -> None:
    torch.manual_seed(0)
    history = torch.tensor([[0, 0, 1, 2], [3, 1, 4, 3], [9, 8, 7, 6]])
    drawn = draw_negatives(9, 500, history)
    assert drawn.shape == (3, 4, 500)
    assert [set(row.unique().tolist()) - {0} for row in drawn] == [{3, 4, 5, 6, 7, 8, 9}, {2, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 5}]
    assert (drawn == 0).float().mean() < 0.1  # where three draws had been bought
    counts = torch.bincount(drawn[0].flatten(), minlength=10)[3:].float()
    assert counts.max() / counts.min() < 1.4  # uniform


def test_who_bought_everything_gets_the_cold_item() -> None:
    assert draw_negatives(2, 3, torch.tensor([[1, 2]])).eq(0).all()


def test_binary_cross_entropy_by_hand() -> None:
    right, wrong = torch.tensor([log(3), 0.0]), torch.tensor([log(4)])
    assert float(binary_cross_entropy(right, wrong)) == pytest.approx((-log(3 / 4) - log(1 / 2)) / 2 - log(1 / 5))
    assert float(binary_cross_entropy(torch.tensor([50.0]), torch.tensor([-50.0]))) == pytest.approx(0, abs=1e-6)


def test_pairs_by_hand() -> None:
    table = torch.tensor([[9.0], [1], [2], [3], [5]])  # rows hold 1, 2 and 3: item 4 is the only negative
    expected = torch.tensor([[[0.5], [-1.0]], [[7.0], [2.0]]])
    asked = batch([1, 2, 3], [3, 2, 1])
    torch.manual_seed(1)
    sequences = [softplus(-0.5 * 2), softplus(1.0 * 3), softplus(-7.0 * 2), softplus(-2.0 * 1)]
    against = [0.5 * 5, -1.0 * 5, 7.0 * 5, 2.0 * 5]
    torch.manual_seed(1)
    drawn = draw_negatives(4, 1, asked.whole())[:, 1:, 0].flatten().tolist()
    torch.manual_seed(1)
    wrong = [softplus(a) for a, n in zip(against, drawn, strict=True) if n == 4]
    assert 0 < len(wrong) < 4  # where three draws had been bought, there is no negative
    assert float(pair_loss(expected, table, asked)) == pytest.approx(sum(sequences) / 4 + sum(wrong) / len(wrong))


def softplus(x: float) -> float:
    return log(1 + exp(x))


def test_pairs_are_asked_where_the_batch_asks() -> None:
    torch.manual_seed(0)
    table, expected = torch.randn(10, 3), torch.randn(1, 3, 3, requires_grad=True)
    pair_loss(expected, table, batch([1, 2, 3], width=3)).backward()
    assert expected.grad is not None
    assert expected.grad.abs().sum(-1)[0].gt(0).tolist() == [False, True, True]


def test_info_nce_by_hand() -> None:
    left, right = torch.tensor([[2.0, 0], [0, 3]]), torch.tensor([[1.0, 0], [1, 1]])
    first = log(1 + exp((1 / sqrt(2) - 1) / 0.5))
    second = log(1 + exp((0 - 1 / sqrt(2)) / 0.5))
    assert float(info_nce(left, right, 0.5)) == pytest.approx((first + second) / 2)
    assert float(info_nce(left, right, 0.5, same=torch.tensor([4, 4]))) == pytest.approx(0, abs=1e-6)  # the other row is no negative
    assert float(info_nce(left, right, 0.5, same=torch.tensor([4, 5]))) == pytest.approx((first + second) / 2)
