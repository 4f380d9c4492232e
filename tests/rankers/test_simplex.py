import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.rankers.simplex import SimpleXModel, SimpleXSettings, cosine_contrastive

POOLS = ["mean", "self_attention", "user_attention"]


def model(**changed: object) -> SimpleXModel:
    return lively(SimpleXModel(9, 3, SimpleXSettings(width=6, max_history=5, **changed)))  # type: ignore[return-value]


def pooled(made: SimpleXModel, items: list[int], user: int) -> torch.Tensor:
    """The paper's formulas, one user at a time."""
    vectors, encoder = made.items.table()[items], made.encoder
    if made.settings.pool == "mean":
        weights = torch.full((len(items),), 1 / len(items))
    else:
        query = encoder.query if made.settings.pool == "self_attention" else made.own.weight[user]
        weights = torch.stack([query @ torch.tanh(encoder.keys.weight @ v + encoder.keys.bias) for v in vectors]).softmax(0)
    return encoder.outward.weight @ (weights @ vectors)


@pytest.mark.parametrize("pool", POOLS)
def test_a_user_is_a_mixture_of_the_own_vector_and_the_pooled_purchases(pool: str) -> None:
    made = model(pool=pool, user_share=0.3)
    found = made.expectations(batch([1, 2, 3, 4], [5, 6], users=[2, 1]))
    for row, place, items, user in ((0, 0, [1], 2), (0, 2, [1, 2, 3], 2), (1, 2, [5], 1)):
        mixed = 0.3 * made.own.weight[user] + 0.7 * pooled(made, items, user)
        torch.testing.assert_close(found[row, place], mixed / mixed.norm())


@pytest.mark.parametrize("pool", POOLS)
def test_of_an_unknown_user_the_purchases_alone_speak(pool: str) -> None:
    made = model(pool=pool)
    before = made.users(batch([1, 2, 3], users=[0]))
    vectors = made.items.table()[[1, 2]]
    alone = made.encoder.outward.weight @ vectors.mean(0) if pool != "self_attention" else pooled(made, [1, 2], 0)
    torch.testing.assert_close(before[0], alone / alone.norm())
    with torch.no_grad():
        made.own.weight[0] += 1
    torch.testing.assert_close(made.users(batch([1, 2, 3], users=[0])), before)


@pytest.mark.parametrize("pool", POOLS)
def test_no_expectation_moves_with_a_later_purchase(pool: str) -> None:
    one, other = (model(pool=pool).expectations(batch([1, 2, third, 4, 5], users=[1])) for third in (3, 7))
    assert ((one - other).abs().amax(-1)[0] > 1e-6).tolist() == [False, False, True, True]


@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_nothing(pool: str) -> None:
    one, other = (model(pool=pool).users(batch([1, 2, 3], width=width, users=[1])) for width in (2, 5))
    torch.testing.assert_close(one, other)


def test_scores_are_cosines() -> None:
    made = model()
    made.items.table().data[1] *= 100
    lengths = made.scored().norm(dim=-1)
    assert lengths.tolist() == pytest.approx([0] + [1] * 9)  # of the cold item nothing is known


def test_the_contrastive_loss_by_hand() -> None:
    right, wrong = torch.tensor([0.75, -0.5]), torch.tensor([[0.5, 0.1], [0.9, -1.0]])
    counts = torch.ones(2, 2, dtype=torch.bool)
    assert value(cosine_contrastive(right, wrong, counts, 0.4, 3.0)) == pytest.approx((0.25 + 1.5) / 2 + 3 * (0.1 + 0 + 0.5 + 0) / 4)
    some, none = torch.tensor([[False, True], [True, False]]), torch.zeros(2, 2, dtype=torch.bool)
    assert value(cosine_contrastive(right, wrong, some, 0.4, 3.0)) == pytest.approx((0.25 + 1.5 + 3 * (0 + 0.5)) / 2)
    assert value(cosine_contrastive(right, wrong, none, 0.4, 3.0)) == pytest.approx((0.25 + 1.5) / 2)
    assert value(cosine_contrastive(torch.ones(2), torch.full((2, 2), 0.4), counts, 0.4, 3.0)) == 0


def test_the_loss_of_a_batch_by_hand() -> None:
    made, asked = model(negatives=6, margin=-0.5, negative_weight=2.0), batch([1, 2, 3], [4, 5], users=[1, 2])
    torch.manual_seed(3)
    drawn = torch.randint(1, 10, (6,)).tolist()
    torch.manual_seed(3)
    found = made.loss(asked)
    cosines, total = made.expectations(asked) @ made.scored().T, 0.0
    for row, place, target in ((0, 0, 2), (0, 1, 3), (1, 1, 5)):
        costs = [max(0.0, value(cosines[row, place, n]) + 0.5) for n in drawn if n not in ([1, 2, 3], [4, 5])[row]]
        assert 0 < len(costs) < 6
        total += 1 - value(cosines[row, place, target]) + 2 * sum(costs) / len(costs)
    assert value(found) == pytest.approx(total / 3, rel=1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_every_part_learns(pool: str) -> None:
    made = model(pool=pool, margin=-0.5)
    made.loss(batch([1, 2, 3, 4], users=[1])).backward()
    gradients = {name: weights.grad if weights.grad is None else weights.grad.to_dense() for name, weights in made.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []
    assert made.own.weight.grad is not None
    assert made.own.weight.grad.any(1).tolist() == [False, True, False, False]
    assert torch.isfinite(gradients["items.embedding.weight"]).all()  # type: ignore[arg-type]


def test_a_user_who_bought_everything_teaches_nothing_wrong() -> None:
    made = SimpleXModel(2, 1, SimpleXSettings(width=4, dropout=0.0))
    made.loss(batch([1, 2], users=[1])).backward()
    gradient = made.items.table().grad.to_dense()
    assert torch.isfinite(gradient).all()
    assert not functional.normalize(gradient[:1]).any()  # the cold item stays as it was
