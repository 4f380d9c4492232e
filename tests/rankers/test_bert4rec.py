import pytest
import torch
from sequences import batch, lively, value
from torch import nn

from recmerge.rankers.bert4rec import Bert4RecModel, Bert4RecSettings


def model(**changed: object) -> Bert4RecModel:
    return lively(Bert4RecModel(9, Bert4RecSettings(width=8, max_history=5, inner=16, **changed)))  # type: ignore[return-value]


def test_a_user_is_what_fits_a_gap_behind_the_purchases() -> None:
    made = model()
    table, bias = made.scored()[:, :-1], made.scored()[:, -1]
    read = torch.stack([table[1], table[2], made.encoder.gap])[None]
    state = made.encoder.transformer(read, torch.ones(1, 3, dtype=torch.bool))[0, -1]
    linear, _, norm = made.encoder.head
    fits = norm(nn.functional.gelu(linear.weight @ state + linear.bias))
    users = made.users(batch([1, 2, 3]))
    torch.testing.assert_close(users[0], torch.cat([fits, torch.ones(1)]))
    torch.testing.assert_close(users @ made.scored().T, (table @ fits + bias)[None])


def test_no_item_begins_with_a_bias_and_none_is_read() -> None:
    made = Bert4RecModel(9, Bert4RecSettings(width=8, max_history=5, inner=16)).eval()
    assert not made.scored()[:, -1].any()
    before = made.users(batch([1, 2, 3]))
    with torch.no_grad():
        made.items.embedding.weight[:, -1] = torch.randn(10)
    assert torch.equal(made.users(batch([1, 2, 3])), before)


def test_the_gap_cannot_be_scored() -> None:
    made = model()
    assert made.scored().shape == (10, 9)  # nine items and the cold one; the bias is the ninth column
    asked, before = batch([1, 2, 3]), made.scored().clone()
    users = made.users(asked)
    with torch.no_grad():
        made.encoder.gap += torch.randn(8)
    assert torch.equal(made.scored(), before)
    assert not torch.allclose(made.users(asked), users)


def test_padding_changes_nothing() -> None:
    one, other = (model().users(batch([1, 2, 3], width=width)) for width in (2, 5))
    torch.testing.assert_close(one, other)


def test_gaps_are_read_from_both_sides_and_not_through() -> None:
    made = model()
    hidden, known = torch.tensor([[False, True, False]]), torch.ones(1, 3, dtype=torch.bool)
    found = {items: made.encoder.fill(made.items.read(torch.tensor([items])), known, hidden)[0, 1] for items in [(1, 2, 3), (1, 7, 3), (4, 2, 3), (1, 2, 4)]}
    torch.testing.assert_close(found[1, 2, 3], found[1, 7, 3])  # what was there is hidden
    assert not torch.allclose(found[1, 2, 3], found[4, 2, 3])
    assert not torch.allclose(found[1, 2, 3], found[1, 2, 4])


def test_the_loss_is_over_what_is_hidden() -> None:
    made, asked = model(), batch([1, 2, 3, 4], [5, 6])
    hidden = torch.tensor([[False, True, False, True], [False, False, True, False]])
    made.hidden = lambda whole: hidden  # type: ignore[method-assign]
    fits = made.encoder.fill(made.items.read(asked.whole()), asked.whole() > 0, hidden)
    scores = fits @ made.scored()[:, :-1].T + made.scored()[:, -1]
    picked = [scores[0, 1].softmax(-1)[2], scores[0, 3].softmax(-1)[4], scores[1, 2].softmax(-1)[5]]
    assert value(made.loss(asked)) == pytest.approx(value(-torch.stack(picked).log().mean()), rel=1e-5)


def test_every_place_is_hidden_as_often_as_the_ratio_says() -> None:
    torch.manual_seed(0)
    whole = batch(*[list(range(1, 10)) * 3] * 2000).whole()
    drawn = model(mask_ratio=0.3, last_ratio=0.0).hidden(whole)
    assert drawn.float().mean(0).tolist() == pytest.approx([0.3] * 27, abs=0.05)
    assert drawn.any(1).all()


def test_one_at_least_is_hidden_and_never_the_padding() -> None:
    torch.manual_seed(0)
    whole = batch(*[[1, 2]] * 300, [1, 2, 3, 4]).whole()
    drawn = model(mask_ratio=0.01, last_ratio=0.0).hidden(whole)
    assert drawn.any(1).all()
    assert not (drawn & (whole == 0)).any()
    assert 100 < int(drawn[:300, -1].sum()) < 200  # of two places, either


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_last_alone_is_hidden_as_often_as_the_share_says(share: float) -> None:
    torch.manual_seed(0)
    whole = batch(*[[1, 2, 3, 4, 5, 6]] * 1000).whole()
    drawn = model(last_ratio=share, mask_ratio=0.9).hidden(whole)
    last_alone = drawn[:, -1] & (drawn.sum(1) == 1)
    assert value(last_alone.float().mean()) == pytest.approx(share, abs=0.05)


def test_every_part_learns() -> None:
    made = model(last_ratio=0.0, mask_ratio=0.5)
    torch.manual_seed(0)
    made.loss(batch([1, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2, 3])).backward()
    assert [name for name, weights in made.named_parameters() if weights.grad is None or not weights.grad.any()] == []
