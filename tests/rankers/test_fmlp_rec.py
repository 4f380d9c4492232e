import numpy as np
import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.rankers.fmlp_rec import Filter, FmlpRecModel, FmlpRecSettings
from recmerge.rankers.sequential.losses import draw_negatives


def model(max_history: int = 5, **changed: object) -> FmlpRecModel:
    return lively(FmlpRecModel(9, FmlpRecSettings(width=4, max_history=max_history, inner=16, **changed)))  # type: ignore[return-value]


@pytest.mark.parametrize("length", [1, 4, 5])
def test_the_filter_is_a_circular_convolution(length: int) -> None:
    """Its kernel is the inverse transform of the weights; the orthonormal scale cancels out between there and back."""
    torch.manual_seed(0)
    made = lively(Filter(3, length))
    weights = made.weights.detach().double().numpy()
    kernel = np.fft.irfft(weights[..., 0] + 1j * weights[..., 1], n=length, axis=0)
    vectors = torch.randn(2, length, 3)
    expected = np.zeros((2, length, 3))
    for place in range(length):
        for other in range(length):
            expected[:, place] += kernel[(place - other) % length] * vectors[:, other].numpy()
    assert made(vectors).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_a_filter_of_ones_changes_nothing() -> None:
    made, vectors = Filter(3, 6), torch.randn(2, 6, 3)
    with torch.no_grad():
        made.weights.copy_(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(made(vectors), vectors)


@pytest.mark.parametrize("blocks", [1, 2])
def test_expectations_are_those_of_the_layers_written_out(blocks: int) -> None:
    made = model(blocks=blocks)
    encoder, table = made.encoder, made.items.table()
    state = torch.stack([torch.zeros(4), torch.zeros(4), table[1], table[2], table[3]])[None] + encoder.positions
    state = encoder.norms[0](state)
    for block in range(blocks):
        state = encoder.norms[2 * block + 1](state + encoder.filters[block](state))
        feed = encoder.forwards[block]
        wide = functional.gelu(functional.linear(state, feed.widen.weight, feed.widen.bias))
        state = encoder.norms[2 * block + 2](state + functional.linear(wide, feed.narrow.weight, feed.narrow.bias))
    torch.testing.assert_close(made.expectations(batch([1, 2, 3, 4])), state[:, -3:])


def test_padding_changes_nothing_whatever_the_cold_item_is() -> None:
    made = model()
    one, other = (made.users(batch([1, 2, 3], width=width)) for width in (2, 5))
    torch.testing.assert_close(one, other)
    with torch.no_grad():
        made.items.table()[0] += 1
    torch.testing.assert_close(made.users(batch([1, 2, 3], width=5)), one)


def test_the_last_place_alone_is_asked_because_a_filter_goes_round_the_end() -> None:
    assert not FmlpRecModel.every_place
    one, other = (model().expectations(batch([1, 2, 3, fourth, 5])) for fourth in (4, 8))
    assert ((one - other).abs().amax(-1)[0] > 1e-6).all()


def test_the_softmax_by_hand() -> None:
    made, asked = model(), batch([1, 2, 3], [4, 5], every_place=False)
    scores = made.users(asked) @ made.items.table().T
    picked = [scores[0].softmax(-1)[3], scores[1].softmax(-1)[5]]
    assert value(made.loss(asked)) == pytest.approx(value(-torch.stack(picked).log().mean()), rel=1e-5)


def test_the_binary_loss_by_hand() -> None:
    made, asked = model(loss="bce"), batch([1, 2, 3], [4, 5], every_place=False)
    torch.manual_seed(3)
    wrong = draw_negatives(9, 1, asked.whole())[:, -1, 0]
    torch.manual_seed(3)
    found = made.loss(asked)
    users, table = made.users(asked), made.items.table()
    terms = [functional.softplus(-users[row] @ table[target]) + functional.softplus(users[row] @ table[wrong[row]]) for row, target in ((0, 3), (1, 5))]
    assert value(found) == pytest.approx(value(sum(terms)) / 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_every_part_learns(loss: str) -> None:
    made = model(loss=loss)
    made.loss(batch([1, 2, 3], [4, 5, 6], [7, 8], every_place=False)).backward()
    assert [name for name, weights in made.named_parameters() if weights.grad is None or not weights.grad.any()] == []
