"""What PinnerFormer adds: answers from a window, a corrected softmax over few items, vectors of length 1."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sequences import batch, lively, purchases

from recmerge.rankers.pinnerformer import PinnerFormerModel, PinnerFormerRanker, PinnerFormerSettings, draw_answers
from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import last_places

DAY = 86_400


def model(n_items: int = 9, **settings: Any) -> PinnerFormerModel:
    made = PinnerFormerModel(n_items, PinnerFormerSettings(width=8, heads=2, inner=16, max_history=6, **settings))
    lively(made)
    with torch.no_grad():
        made.temperature.fill_(0.5)
    made.share.copy_(torch.arange(n_items + 1) / sum(range(n_items + 1)))
    return made


def timed(row: list[int], days: list[float], width: int = 0) -> Batch:
    asked = batch(row, width=width)
    times = torch.full_like(asked.times, -1)
    times[0, -len(row) :] = (torch.tensor(days) * DAY).long()
    return replace(asked, times=times)


def drawn(asked: Batch, window_days: float) -> list[set[int]]:
    torch.manual_seed(0)
    answers = [draw_answers(asked, int(window_days * DAY))[0] for _ in range(200)]
    return [{int(found[place]) for found in answers} for place in range(asked.items.shape[1]) if asked.items[0, place] > 0]


def test_answers_are_the_purchases_of_the_window_or_the_next_one() -> None:
    asked = timed([1, 2, 3, 4, 5], [0, 10, 28, 40, 100])
    assert drawn(asked, 28) == [{2, 3}, {3}, {4}, {5}]  # 2 on day 10 sees 3 on day 28; 4 on day 40 is 30 days later
    assert drawn(asked, 30) == [{2, 3}, {3, 4}, {4}, {5}]
    assert drawn(asked, 0) == [{2}, {3}, {4}, {5}]
    padded = timed([1, 2, 3, 4, 5], [0, 10, 28, 40, 100], width=9)
    assert drawn(padded, 30) == drawn(asked, 30)


def test_without_times_all_later_purchases_may_be_the_answer() -> None:
    assert drawn(batch([1, 2, 3, 4], width=5), 28) == [{2, 3, 4}, {3, 4}, {4}]


def test_an_unknown_time_is_that_of_the_purchase_before() -> None:
    unknown = -1 / DAY
    assert drawn(timed([1, 2, 3], [100, 200, unknown]), 28) == [{2}, {3}]
    assert drawn(timed([1, 2, 3, 4], [100, unknown, 110, 200]), 28) == [{2, 3}, {3}, {4}]


def test_each_purchase_of_the_window_is_as_likely() -> None:
    torch.manual_seed(0)
    answers = Counter(draw_answers(batch(*[[1, 2, 3, 4]] * 3000), DAY)[:, 0].tolist())
    assert [answers[n] / 3000 for n in (2, 3, 4)] == pytest.approx([1 / 3] * 3, abs=0.03)


def test_where_a_row_holds_an_item_last() -> None:
    rows = torch.tensor([[0, 0, 3, 4], [5, 3, 5, 3]])
    assert last_places(rows, torch.tensor([3, 5, 9, 3])).tolist() == [[2, -1, -1, 2], [3, 2, -1, 3]]


def test_vectors_have_length_one() -> None:
    pinnerformer, asked = model(), batch([1, 2, 3, 4])
    assert pinnerformer.expectations(asked).norm(dim=-1).detach() == pytest.approx(torch.ones(1, 3), abs=1e-6)
    assert pinnerformer.scored().norm(dim=-1).detach() == pytest.approx(torch.ones(10), abs=1e-6)


def test_the_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pinnerformer, asked = model(batch_negatives=2, random_negatives=3), timed([1, 2, 3, 2], [0, 0, 100, 200])
    others = torch.tensor([3, 2, 7, 1, 0])  # two of the batch, three at random
    monkeypatch.setattr(PinnerFormerModel, "draw_others", lambda self, answers: others)
    expected, vectors = pinnerformer.expectations(asked)[0].detach().numpy(), pinnerformer.scored().detach().numpy()
    chance = (2 * np.arange(10) / 45 + 3 / 10) / 5
    logits = expected @ vectors.T / 0.5 - np.log(chance)
    allowed = {0: [7, 1, 0], 1: [7, 1, 0], 2: [3, 7, 1, 0]}  # 2 and 3 are bought later; after the third place 3 is not
    answers = {0: 2, 1: 3, 2: 2}
    losses = [-math.log(np.exp(logits[t, answers[t]]) / np.exp(logits[t, [answers[t], *allowed[t]]]).sum()) for t in range(3)]
    assert float(pinnerformer.loss(asked).detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_chances_are_those_of_the_draws() -> None:
    pinnerformer = model(batch_negatives=50, random_negatives=30)
    torch.manual_seed(0)
    seen = torch.zeros(10)
    for _ in range(400):
        answers = torch.multinomial(pinnerformer.share, 200, replacement=True)
        others = pinnerformer.draw_others(answers)
        assert len(others) == 80
        seen += torch.bincount(others, minlength=10)
    assert (seen / seen.sum()).tolist() == pytest.approx(pinnerformer.log_chance(50).exp().tolist(), abs=0.01)
    assert float(pinnerformer.log_chance(50).exp().sum()) == pytest.approx(1)


def test_the_correction_undoes_popularity() -> None:
    """The sampled softmax of many draws comes to the full softmax, however unequal the chances."""
    pinnerformer = model(batch_negatives=40_000, random_negatives=10_000)
    cosine = torch.randn(10) / 0.5
    torch.manual_seed(0)
    others = pinnerformer.draw_others(torch.multinomial(pinnerformer.share, 40_000, replacement=True))
    sampled = (cosine - pinnerformer.log_chance(40_000))[others].exp().mean()
    assert float(sampled) == pytest.approx(float(cosine.exp().sum()), rel=0.03)


def test_shares_are_counted_over_all_purchases() -> None:
    ranker = PinnerFormerRanker(PinnerFormerSettings(width=4))
    made = ranker.build({"n_items": 4, "n_users": 0})
    ranker.furnish(made, purchases([1, 2, 1], [1, 4], n_items=4))
    assert made.share.tolist() == pytest.approx([0, 0.6, 0.2, 0, 0.2])


def test_what_comes_later_moves_nothing_before() -> None:
    pinnerformer = model()
    one, other = (pinnerformer.expectations(batch([1, 2, third, 5])) for third in (3, 6))
    assert one[:, :2].detach() == pytest.approx(other[:, :2].detach(), abs=1e-6)
    assert (one[:, 2] - other[:, 2]).abs().max() > 1e-3


def test_padding_changes_nothing() -> None:
    pinnerformer = model()
    alone, padded = pinnerformer.expectations(batch([1, 2, 3])), pinnerformer.expectations(batch([1, 2, 3], width=6))
    assert padded[:, -2:].detach() == pytest.approx(alone.detach(), abs=1e-6)


def test_every_weight_learns_the_temperature_too() -> None:
    pinnerformer = model()
    torch.manual_seed(0)
    pinnerformer.loss(batch([1, 2, 3, 5, 6, 4], [3, 2, 1])).backward()
    assert [name for name, weights in pinnerformer.named_parameters() if weights.grad is None or not weights.grad.any()] == []


def test_the_temperature_stays_warm() -> None:
    pinnerformer, asked = model(), batch([1, 2, 3, 5])
    losses, slopes = [], []
    for temperature in (-1.0, 0.01):
        torch.manual_seed(0)
        pinnerformer.zero_grad()
        with torch.no_grad():
            pinnerformer.temperature.fill_(temperature)
        loss = pinnerformer.loss(asked)
        loss.backward()
        losses.append(float(loss.detach()))
        slopes.append(float(pinnerformer.temperature.grad))  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3)
    assert abs(slopes[0]) > 1  # and can return
