"""What MCRPL adds: prompts beside every purchase, and a classifier over the items of all domains."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.data.training_set import TrainingSet
from recmerge.rankers.mcrpl import McrplModel, McrplRanker, McrplSettings, Prompts
from tests.rankers.test_contract import checkerboard, questions, turned_round

SIZES = {"n_items": 6, "n_all": 15, "first": 4}
SMALL: dict[str, Any] = {"width": 8, "inner": 16, "max_history": 6}
MIXES = ["gate", "item", "mean"]


def model(**settings: Any) -> McrplModel:
    made = McrplModel(SIZES, McrplSettings(**SMALL, **settings))
    lively(made)
    return made


def test_a_gate_weighs_the_prompts_and_the_purchase() -> None:
    prompts, purchase = Prompts(4, 2, "gate", 16, 0.5), torch.randn(4)
    lively(prompts)
    beside = [*prompts.shared, *prompts.own, purchase]
    shares = torch.softmax(torch.cat([prompts.gate(torch.cat([vector, purchase])) for vector in beside]), 0)
    expected = sum(share * vector for share, vector in zip(shares, beside, strict=True))
    assert torch.allclose(prompts(purchase[None, None])[0, 0], expected, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("mix", ["item", "mean"])
def test_attention_among_prompts_and_the_purchase(mix: str) -> None:
    prompts, purchase = Prompts(4, 2, mix, 16, 0.5), torch.randn(4)
    lively(prompts)
    beside = torch.stack([*prompts.shared, *prompts.own, purchase])
    queries, keys, values = (beside @ weight.T for weight in prompts.inward.weight.chunk(3))
    said = beside + torch.softmax(queries @ keys.T / 2, -1) @ values @ prompts.outward.weight.T
    said = (said - said.mean(1, keepdim=True)) / (said.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(prompts(purchase[None, None])[0, 0], said[-1] if mix == "item" else said.mean(0), atol=1e-5)


def test_prompts_that_differ_by_hand() -> None:
    prompts = Prompts(2, 1, "gate", 16, 0.0)
    prompts.own.data, prompts.shared.data = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])
    # (.6, .8)^T (0, 1) = ((0, .6), (0, .8)); the mean of the squares is 1 / 4
    assert value(prompts.difference_loss()) == pytest.approx(0.25, rel=1e-4)
    prompts.own.data = torch.zeros(1, 2)
    assert value(prompts.difference_loss()) == 0


def test_scores_are_those_of_the_classifier_with_its_bias() -> None:
    mcrpl, asked = model(), batch([1, 2, 3])
    found = mcrpl.encoder(mcrpl.items.read(asked.items), asked.items > 0)[:, -1]
    logits = mcrpl.items.classes(found)[0]
    assert torch.allclose((mcrpl.users(asked) @ mcrpl.scored().T)[0], logits[[0, 5, 6, 7, 8, 9, 10]], atol=1e-5)
    assert torch.equal(mcrpl.items.read(torch.tensor([[1, 0]]))[0], mcrpl.items.embedding.weight[[5, 0]])


def test_loss_is_over_the_items_of_all_domains() -> None:
    mcrpl, asked = model(difference_weight=0.5), batch([1, 2, 3], [4, 5])
    found = mcrpl.encoder(mcrpl.items.read(asked.items), asked.items > 0)[asked.targets > 0]
    by_hand = functional.cross_entropy(mcrpl.items.classes(found), torch.tensor([2, 3, 5]) + 4)
    assert value(mcrpl.classifier_loss(asked)) == pytest.approx(value(by_hand), rel=1e-5)
    assert value(mcrpl.loss(asked)) == pytest.approx(value(by_hand + 0.5 * mcrpl.encoder.prompts.difference_loss()), rel=1e-5)


@pytest.mark.parametrize("mix", MIXES)
def test_later_purchases_and_padding_move_nothing_earlier(mix: str) -> None:
    mcrpl = model(aggregation=mix)
    one, other, padded = (mcrpl.expectations(b) for b in (batch([1, 2, 3, 4]), batch([1, 2, 5, 6]), batch([1, 2, 3, 4], width=6)))
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
    assert torch.allclose(one, padded[:, -3:], atol=1e-5)


@pytest.mark.parametrize("mix", MIXES)
def test_every_weight_learns(mix: str) -> None:
    mcrpl = model(aggregation=mix).train()
    mcrpl.loss(batch([1, 2, 3], [4, 5, 6])).backward()
    still = {name for name, p in mcrpl.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert still <= {"encoder.prompts.gate.3.bias"}  # what is added to all logits of a softmax


class Watched(McrplRanker):
    """Keeps what each domain's model was before it is taught."""

    def teach(self, model: Any, purchases: Any) -> dict[str, Any]:
        self.before = getattr(self, "before", {}) | {purchases.domain.name: {key: t.clone() for key, t in model.state_dict().items()}}
        return super().teach(model, purchases)


def test_domains_begin_with_all_they_learnt_together_and_part() -> None:
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    ranker = Watched(McrplSettings(width=16, inner=16, epochs=8))
    ranker.fit(TrainingSet("beauty_sports", domains, pl.DataFrame()))
    one, other = ranker.before["beauty"], ranker.before["sports"]
    assert all(torch.equal(one[key], other[key]) for key in one)
    own = [ranker.fitted[name].model.state_dict()["encoder.prompts.own"] for name in domains]
    assert not torch.equal(*own)
    assert ranker.facts["training"]["sports"]["epochs"] <= 3  # what the first stage left of the eight
    assert (ranker.facts["pretraining"]["epochs"], ranker.fitted["sports"].sizes) == (5, {"n_items": 16, "n_users": 0, "n_all": 32, "first": 16})
    assert np.isfinite(ranker.score(questions())).all()
    assert np.isfinite(ranker.score(questions("beauty"))).all()
