"""What VQ-Rec adds: codes, negatives half made up, and places that values exchange."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.data.training_set import TrainingSet
from recmerge.rankers.vq_rec import CodedItems, VqRecModel, VqRecRanker, VqRecSettings, learn_codes, straight_permutation
from tests.rankers.test_contract import checkerboard, installed, questions, turned_round

CODES = np.random.default_rng(0).integers(4, size=(9, 3)).astype(np.uint8)
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "inner": 16, "max_history": 6, "digits": 3, "bits": 2}


def model(**settings: Any) -> VqRecModel:
    made = VqRecModel(9, VqRecSettings(**SMALL | settings))
    made.items.furnish(CODES)
    places = made.items.places.clone()
    lively(made)
    made.items.places.data = places
    return made


def test_an_item_is_the_mean_of_its_digits() -> None:
    items = model().items
    for number, code in enumerate(CODES, start=1):
        mean = torch.stack([items.embedding[digit, v] for digit, v in enumerate(code.tolist())]).mean(0)
        assert torch.allclose(items.table()[number], mean, atol=1e-6)
    assert torch.equal(items.table()[0], items.cold)
    asked = torch.tensor([[0, 3, 3], [9, 1, 0]])
    assert torch.allclose(items.read(asked), items.table()[asked], atol=1e-6)


def test_what_is_half_made_up_keeps_some_digits() -> None:
    vqrec = VqRecModel(1, VqRecSettings(**SMALL | {"digits": 200, "bits": 8, "replaced": 0.75}))
    vqrec.items.furnish(np.full((1, 200), 255, dtype=np.uint8))
    made = vqrec.half_made(torch.ones(50, dtype=torch.int64))
    assert (made == 255).float().mean().item() == pytest.approx(0.25 + 0.75 / 256, abs=0.02)
    assert len(made.unique()) == 256  # every value is drawn


def test_the_first_stage_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    vqrec, asked = model(), batch([1, 2, 3], [4, 2])
    made = torch.tensor([[0, 1, 2], [3, 3, 3], [1, 1, 0]], dtype=torch.uint8)
    monkeypatch.setattr(vqrec, "half_made", lambda items: made)
    expected, targets = vqrec.expectations(asked)[asked.targets > 0], asked.targets[asked.targets > 0]
    vectors = functional.normalize(torch.stack([vqrec.items.embedding[torch.arange(3), code.long()].mean(0) for code in made]), dim=-1)
    cosines = torch.cat([expected @ vqrec.scored()[targets].T, (expected * vectors).sum(1, keepdim=True)], 1) / 0.07
    cosines[0, 2] = cosines[2, 0] = -torch.inf  # the same item is no negative
    assert value(vqrec.transfer_loss(asked)) == pytest.approx(value(functional.cross_entropy(cosines, torch.arange(3))), rel=1e-4)


def test_sinkhorn_makes_ones_and_their_gradient_reaches_all_places() -> None:
    logits = torch.tensor([[[9.0, 0, 0], [0, 0, 9], [0, 9, 0]]], requires_grad=True)
    found = straight_permutation(logits, noisy=False)
    assert torch.equal(found.round(), torch.tensor([[[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]]))
    soft = logits.detach() / 0.7
    for _ in range(3):
        soft = soft - soft.logsumexp(2, keepdim=True)
        soft = soft - soft.logsumexp(1, keepdim=True)
    assert soft.exp().sum(1)[0].tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    (found * torch.randn(1, 3, 3)).sum().backward()
    assert (logits.grad != 0).all()
    flat = straight_permutation(torch.zeros(1, 64, 64), noisy=True)
    assert flat.sum(2).round().unique().tolist() == [1]
    assert flat.argmax(2).unique().numel() > 20  # the noise decides where nothing else does


def test_values_settle_in_the_places_they_learnt() -> None:
    items = CodedItems(1, 1, 3, 2)
    items.embedding.data = torch.tensor([[[1.0, 1], [2, 2], [3, 3]]])
    items.places.data = torch.tensor([[[0.0, 5, 0], [0, 4, 3], [9, 0, 0]]])  # two want the second place; the first wants it more
    items.settle()
    assert items.embedding.data[0, :, 0].tolist() == [2, 3, 1]
    items.is_moving = True
    assert torch.equal(items.eval().values().round(), items.embedding)  # and stay there


def test_equal_vectors_have_equal_codes_and_near_ones_nearer_codes() -> None:
    installed("vq_rec")
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(6, 16)).astype(np.float32)
    vectors = np.repeat(centres, 50, 0) + 0.05 * draw.normal(size=(300, 16)).astype(np.float32)
    vectors[1] = vectors[0]
    codes = learn_codes(vectors, 4, 3)
    assert (codes.shape, codes.max()) == ((300, 4), 7)
    assert (codes[0] == codes[1]).all()
    agree = (codes[:, None] == codes[None]).mean(2)
    same = np.repeat(np.arange(6), 50)[:, None] == np.repeat(np.arange(6), 50)[None]
    assert agree[same].mean() > agree[~same].mean() + 0.3
    assert learn_codes(vectors[:3, :10], 4, 3).shape == (3, 4)  # fewer vectors than features, features that no digit gets


def test_later_purchases_and_padding_move_nothing_earlier() -> None:
    vqrec = model()
    one, other, padded = (vqrec.expectations(b) for b in (batch([1, 2, 3, 4]), batch([1, 2, 5, 6]), batch([1, 2, 3, 4], width=6)))
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
    assert torch.allclose(one, padded[:, -3:], atol=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_domains_share_codes_and_begin_with_what_they_learnt_together(freeze: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("vq_rec")
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    domains = {name: replace(domain, candidates=domain.candidates.filter(pl.col("split") != "valid")) for name, domain in domains.items()}  # nobody to stop for
    seen: dict[str, dict[str, torch.Tensor]] = {}
    monkeypatch.setattr(VqRecRanker, "align", aligned := Spy(VqRecRanker.align, seen))
    ranker = VqRecRanker(VqRecSettings(width=16, inner=16, epochs=4, digits=8, bits=4, freeze_encoder=freeze, alignment=0.5))
    ranker.fit(TrainingSet("beauty_sports", domains, pl.DataFrame()))
    before, after = seen["before"], seen["after"]
    assert aligned.calls == 2
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed <= {"items.embedding"}  # and that by exchange alone
    for one, other in zip(before["items.embedding"], after["items.embedding"], strict=True):
        assert {tuple(row.tolist()) for row in one} == {tuple(row.tolist()) for row in other}
    last = ranker.fitted["sports"].model.state_dict()
    assert any(not torch.equal(last[key], after[key]) for key in last if key.startswith("encoder.blocks")) is not freeze
    assert not torch.equal(last["items.embedding"], after["items.embedding"])
    assert np.isfinite(ranker.score(questions())).all()


class Spy:
    """Stands for the alignment, and keeps a model's weights before and after."""

    def __init__(self, real: Any, seen: dict[str, Any]) -> None:
        self.real, self.seen, self.calls = real, seen, 0

    def __get__(self, ranker: Any, _: Any) -> Any:
        def align(model: VqRecModel, *rest: Any) -> Any:
            self.calls += 1
            self.seen["before"] = {key: t.clone() for key, t in model.state_dict().items()}
            facts = self.real(ranker, model, *rest)
            self.seen["after"] = {key: t.clone() for key, t in model.state_dict().items()}
            return facts

        return align
