"""What UniSRec adds: the adaptor, the contrast of sequences, and what goes from all domains to each."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.data.training_set import TrainingSet
from recmerge.rankers.sequential.losses import info_nce
from recmerge.rankers.sequential.together import some_asked
from recmerge.rankers.unisrec import MixtureAdaptor, UniSRecModel, UniSRecRanker, UniSRecSettings, drop_items, drop_words
from tests.rankers.test_contract import checkerboard, installed, questions, turned_round

SIZES = {"n_items": 9, "n_features": 4}
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "inner": 16, "max_history": 6, "experts": 3}


def model(transductive: bool = False, **settings: Any) -> UniSRecModel:
    made = UniSRecModel(SIZES, UniSRecSettings(**SMALL, **settings), transductive=transductive)
    made.items.furnish(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16))
    lively(made)
    return made


def test_the_adaptor_is_a_gated_sum_of_whitened_vectors() -> None:
    adaptor, x = MixtureAdaptor(4, 5, 3, 0.2), torch.randn(2, 4)
    lively(adaptor)
    for row, found in zip(x, adaptor(x), strict=True):
        gate = torch.softmax(row @ adaptor.gate, 0)
        assert torch.allclose(found, sum(gate[k] * ((row - adaptor.shifts[k]) @ adaptor.weights[k]) for k in range(3)), atol=1e-5)  # type: ignore[arg-type]


def test_the_gate_is_noisy_in_training_only() -> None:
    adaptor, x = MixtureAdaptor(4, 5, 3, 0.0), torch.randn(2000, 4)
    assert torch.equal(adaptor.eval()(x), adaptor(x))
    assert adaptor.gates(x).std() < 1e-6  # an untrained gate knows no difference
    logits = adaptor.train().gates(x).log()
    differences = logits[:, 0] - logits[:, 1]
    assert differences.std().item() == pytest.approx(2**0.5 * (np.log(2) + 0.01), rel=0.1)  # softplus(0) + 0.01 each


def test_items_are_read_as_they_are_scored_and_the_cold_one_has_its_own() -> None:
    unisrec, items = model(transductive=True), torch.tensor([[0, 3, 3], [9, 1, 0]])
    assert torch.allclose(unisrec.items.read(items), unisrec.items.table()[items], atol=1e-6)
    assert torch.equal(unisrec.items.table()[0], unisrec.items.cold + unisrec.items.ids[0])  # type: ignore[index]


def test_a_score_is_a_cosine() -> None:
    unisrec = model()
    assert unisrec.scored().norm(dim=1).tolist() == pytest.approx([1.0] * 10, abs=1e-5)
    assert unisrec.users(batch([1, 2, 3])).norm(dim=1).tolist() == pytest.approx([1.0], abs=1e-5)


def test_loss_by_hand_and_by_drawn_items() -> None:
    unisrec, asked = model(temperature=0.5), batch([1, 2, 3], [4, 5])
    expected, table = unisrec.expectations(asked)[asked.targets > 0], unisrec.scored()
    by_hand = functional.cross_entropy(expected @ table.T / 0.5, torch.tensor([2, 3, 5]))
    assert value(unisrec.loss(asked)) == pytest.approx(value(by_hand), rel=1e-5)
    drawn = model(temperature=0.5, negatives=8)
    assert np.mean([value(drawn.loss(asked)) for _ in range(200)]) == pytest.approx(value(by_hand), rel=0.15)  # of a logarithm, so a little low


def test_the_first_stage_by_hand() -> None:
    unisrec, asked = model(sequence_weight=0.0), batch([1, 2, 3], [4, 2])
    found, targets = unisrec.expectations(asked), asked.targets[asked.targets > 0]
    expected, last = found[asked.targets > 0], found[:, -1]
    assert targets.tolist() == [2, 3, 2]
    cosines = expected @ unisrec.scored()[targets].T / 0.07
    cosines[0, 2] = cosines[2, 0] = -torch.inf  # the same item is no negative
    by_hand = functional.cross_entropy(cosines, torch.arange(3))
    assert value(unisrec.transfer_loss(asked)) == pytest.approx(value(by_hand), rel=1e-4)
    whole = model(sequence_weight=0.5, drop=0.0)  # nothing is dropped: each sequence is to find itself
    again = info_nce(last, last, 0.07, asked.targets[:, -1])
    assert value(whole.transfer_loss(asked)) == pytest.approx(value(by_hand + 0.5 * again), rel=1e-4)


def test_changed_sequences_read_titles_that_lack_words(monkeypatch: pytest.MonkeyPatch) -> None:
    unisrec = model(drop=0.2)
    unisrec.changed = 5
    lots = [torch.full((2, 3), 0.9), torch.tensor([[0.1, 0.1, 0.3], [0.1, 0.1, 0.1]]), torch.tensor([[0.05], [0.5]])]
    monkeypatch.setattr(torch, "rand", lambda *size, **_: lots.pop(0))  # no purchase is dropped; which titles lack words; in which rows
    assert unisrec.changed_items(torch.tensor([[0, 1, 2], [0, 0, 3]])).tolist() == [[0, 6, 2], [0, 0, 3]]


def test_dropped_purchases_leave_no_gap_and_never_an_empty_row() -> None:
    items = torch.tensor([[0, 0, 1, 2, 3, 4]] * 4000)
    found = drop_items(items, 0.2)
    assert {tuple(n for n in row if n) for row in found.tolist()} >= {(1, 2, 3, 4), (1, 2, 4), (3,)}
    assert ((found[:, 1:] > 0) | (found[:, :-1] == 0)).all()
    assert (found[:, -1] > 0).all()
    assert (found > 0).sum().item() == pytest.approx(0.8 * 16000, rel=0.02)
    assert torch.equal(drop_items(items, 0.0), items)
    assert drop_items(items, 1.0)[0].tolist() == [0, 0, 0, 0, 0, 4]


def test_dropped_words() -> None:
    titles = ["one two three four five"] * 2000 + ["alone", ""]
    found = drop_words(titles, 0.2, 7)
    assert found == drop_words(titles, 0.2, 7) != drop_words(titles, 0.2, 8)
    assert sum(len(t.split()) for t in found[:2000]) == pytest.approx(8000, rel=0.03)
    assert found[2000:] == ["alone", ""]


def test_later_purchases_and_padding_move_nothing_earlier() -> None:
    unisrec = model()
    one, other, padded = (unisrec.expectations(b) for b in (batch([1, 2, 3, 4]), batch([1, 2, 5, 6]), batch([1, 2, 3, 4], width=6)))
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
    assert torch.allclose(one, padded[:, -3:], atol=1e-5)


def test_every_weight_learns() -> None:
    unisrec = model(transductive=True).train()
    unisrec.loss(batch([1, 2, 3], [4, 5, 6])).backward()
    assert {name for name, p in unisrec.named_parameters() if p.grad is None or not p.grad.abs().sum()} == set()


class Watched(UniSRecRanker):
    """Keeps what each domain's model was before it is taught."""

    def teach(self, model: Any, purchases: Any) -> dict[str, Any]:
        self.before = getattr(self, "before", {}) | {purchases.domain.name: {key: t.clone() for key, t in model.state_dict().items()}}
        return super().teach(model, purchases)


def both() -> TrainingSet:
    """Two domains with nobody to stop for: the last model of each stays."""
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    domains = {name: replace(domain, candidates=domain.candidates.filter(pl.col("split") != "valid")) for name, domain in domains.items()}
    return TrainingSet("beauty_sports", domains, pl.DataFrame())


@pytest.mark.parametrize(("freeze", "transductive"), [(True, False), (False, True)])
def test_domains_begin_with_what_they_learnt_together(freeze: bool, transductive: bool) -> None:
    installed("unisrec")
    settings = UniSRecSettings(width=16, inner=16, epochs=4, freeze_encoder=freeze, transductive=transductive)
    ranker = Watched(settings)
    ranker.fit(both())
    one, other = ranker.before["beauty"], ranker.before["sports"]
    same = {key for key in one if torch.equal(one[key], other[key])}
    assert set(one) - same == {"items.vectors"}
    after = ranker.fitted["sports"].model.state_dict()
    moved = {key for key in after if not torch.equal(after[key], other[key])}
    assert any(key.startswith("items.adaptor") for key in moved)
    assert any(key.startswith("encoder.blocks") for key in moved) is not freeze
    assert ("encoder.positions" in moved) is not freeze
    assert "encoder.edge.weight" in moved
    assert ranker.facts["pretraining"]["epochs"] == 2
    assert np.isfinite(ranker.score(questions())).all()


def test_one_domain_alone_has_no_first_stage() -> None:
    installed("unisrec")
    ranker = UniSRecRanker(UniSRecSettings(width=16, inner=16, epochs=2))
    ranker.fit(checkerboard())
    assert "pretraining" not in ranker.facts
    assert all(p.requires_grad for p in ranker.fitted["sports"].model.parameters())


def test_of_many_questions_some_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = batch([1, 2, 3, 4], [4, 5, 6]).targets
    assert torch.equal(some_asked(targets), targets > 0)
    monkeypatch.setattr("recmerge.rankers.sequential.together._QUESTIONS", 3)
    drawn = [some_asked(targets) for _ in range(50)]
    assert {int(asked.sum()) for asked in drawn} == {3}
    assert not any(asked[targets == 0].any() for asked in drawn)
    assert torch.stack(drawn).any(0).sum() == 5  # each is asked at some time


def test_items_are_made_once_and_rows_of_like_length_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    unisrec, asked = model(negatives=4), batch([1, 2], *[[1, 2, 3, 4, 5, 6]] * 3, [7, 8])
    monkeypatch.setattr("recmerge.rankers.sequential.batches._PART", 1)
    made, read = unisrec.items.of, unisrec.encoder.forward
    numbers, shapes = [], []
    monkeypatch.setattr(unisrec.items, "of", lambda items: numbers.append(items) or made(items))
    monkeypatch.setattr(unisrec.encoder, "forward", lambda vectors, known: shapes.append(tuple(known.shape)) or read(vectors, known))
    unisrec.loss(asked)
    assert len(numbers) == 1
    assert len(numbers[0].unique()) == len(numbers[0])
    assert shapes == [(2, 1), (3, 5)]
