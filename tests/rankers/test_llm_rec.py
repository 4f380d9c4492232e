"""What LLM-Rec adds: users and items read by one language model, negatives of one's own domain, and a LoRA that is kept alone."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from sequences import batch, value
from torch.nn import functional

from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError, ConfigError
from recmerge.lm.base import shipped_base
from recmerge.rankers import load_ranker, save_ranker
from recmerge.rankers.llm_rec import LlmRecModel, LlmRecRanker, LlmRecSettings
from recmerge.rankers.sequential.purchases import read_purchases
from tests.rankers.test_contract import checkerboard, questions, turned_round


@cache
def untrained() -> LlmRecModel:
    """A model of the checkerboard whose LoRA does something."""
    ranker, purchases = LlmRecRanker(LlmRecSettings(negatives=2)), read_purchases(checkerboard())
    ranker._lm = None
    sizes = {"n_items": len(purchases.items), "longest": 8}
    made = ranker.build(sizes)
    words = ranker._words([purchases])
    made.items.words[:, : words.shape[1]] = words
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in made.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw) * 0.1)
    return made.eval()


@torch.no_grad()
def read_alone(model: LlmRecModel, titles: list[int]) -> torch.Tensor:
    """The last hidden state of a text of titles, by the whole causal model: no padding, no batch."""
    encoder, ids = model.encoder.lm.held.encoder, list(model.encoder.lm.held.encoder.start_ids)
    for number in titles:
        ids += [*(t for t in model.items.words[number].tolist() if t >= 0), encoder.end_id]
    return model.encoder.lm.held.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0, -1]


def test_an_expectation_is_the_state_behind_the_titles_so_far() -> None:
    model = untrained()
    found = model.expectations(batch([3, 1, 4, 1, 5], [2, 6], width=6)).detach()
    assert found.shape == (2, 6, 192)
    for places, titles in (((0, 2), [3]), ((0, 4), [3, 1, 4]), ((0, 5), [3, 1, 4, 1]), ((1, 5), [2])):
        assert torch.allclose(found[places], read_alone(model, titles), atol=1e-4)


def test_a_later_purchase_moves_no_earlier_expectation() -> None:
    before, after = (untrained().expectations(batch([3, 1, last, 5])).detach() for last in (4, 9))
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-5)
    assert (before[:, 2] - after[:, 2]).abs().max() > 0.01


def test_users_are_read_alike_alone_and_in_training_batches() -> None:
    model, rows = untrained(), batch([3, 1, 4, 1, 5], [2, 6], width=6)
    assert torch.allclose(model.users(rows), model.expectations(rows)[:, -1] * 192**-0.5, atol=1e-5)
    assert torch.equal(model.users(rows)[1:], model.users(batch([2, 6])))


def test_an_items_vector_is_the_state_behind_its_title() -> None:
    model = untrained()
    model.refresh()
    for number in (1, 9):
        assert torch.allclose(model.items.table()[number], read_alone(model, [number]), atol=1e-4)
    assert torch.allclose(model.items.table()[0], read_alone(model, [0]), atol=1e-4)  # the cold item has no title
    assert torch.equal(model.scored(), model.items.table() - model.items.table()[0])
    whole = model.items.table().clone()
    model.items.vectors.zero_()
    model.refresh(torch.tensor([5, 2]))
    assert torch.allclose(model.items.table()[[5, 2]], whole[[5, 2]], atol=1e-5)
    assert not model.items.table()[3].any()


def test_the_loss_is_over_the_bought_item_and_what_was_drawn_and_not_bought(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = untrained(), batch([3, 1, 4], [2, 6])
    monkeypatch.setattr(model, "_draw", lambda targets: torch.tensor([[7, 1], [8, 6]]))
    by_hand = []
    for history, target, negatives in (([3], 1, [7, 8, 6]), ([3, 1], 4, [7, 8, 6]), ([2], 6, [7, 1, 8])):  # what a row bought is no negative of it
        scores = torch.stack([read_alone(model, history) @ read_alone(model, [n]) for n in (target, *negatives)]) * 192**-0.5
        by_hand.append(value(functional.cross_entropy(scores[None], torch.tensor([0]))))
    assert value(model.loss(rows)) == pytest.approx(sum(by_hand) / 3, abs=1e-4)


def test_negatives_are_drawn_from_the_domain_of_the_purchase() -> None:
    model = untrained()
    model.edges = torch.tensor([1, 4, 10])
    drawn = model._draw(torch.tensor([1, 3, 4, 9] * 50)).view(50, 4, 2)
    model.edges = None
    assert set(drawn[:, :2].flatten().tolist()) == {1, 2, 3}
    assert set(drawn[:, 2:].flatten().tolist()) == set(range(4, 10))
    assert set(model._draw(torch.ones(200, dtype=torch.long)).flatten().tolist()) == set(range(1, len(model.items.words)))


def test_the_encoder_reads_vectors_in_place_of_tokens() -> None:
    lm = untrained().encoder.lm
    ids = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    known = torch.tensor([[False, False, True, True, True], [True] * 5])
    found = untrained().encoder(lm.held.model.get_input_embeddings()(ids), known).detach()
    assert torch.allclose(found[0, 2:], lm.read(ids[:1, 2:])[0], atol=1e-4)
    assert torch.allclose(found[1], lm.read(ids[1:])[0], atol=1e-4)


def test_gradients_reach_the_lora_and_nothing_of_the_base() -> None:
    model = untrained().train()
    model.loss(batch([3, 1, 4], [2, 6])).backward()
    base = [p for name, p in model.encoder.lm.held.model.named_parameters() if "lora_" not in name]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert base
    assert all(p.grad is None for p in base)
    model.zero_grad()
    model.eval()


def test_domains_share_one_language_model_and_only_its_lora_is_saved(tmp_path: Path) -> None:
    ranker = LlmRecRanker(LlmRecSettings(epochs=1, rank=2, negatives=1))
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    ranker.fit(TrainingSet("beauty_sports", domains, pl.DataFrame()))
    first, second = (ranker.fitted[name].model.encoder.lm for name in ("beauty", "sports"))  # type: ignore[union-attr]
    assert first is second
    save_ranker(ranker, tmp_path)
    tensors = load_file(tmp_path / "ranker" / "weights-0.safetensors")
    assert {key for key in tensors if "lora" not in key} == {"items.words", "items.vectors"}
    assert sum(t.nbytes for key, t in tensors.items() if "lora" in key) == 4 * 116736 // 16 * 2  # float32, rank 2 of 16
    again = LlmRecRanker()
    load_ranker(again, tmp_path)
    for name in domains:
        assert (again.score(questions(name)) == ranker.score(questions(name))).all()


def test_texts_longer_than_the_base_reads_are_refused() -> None:
    ranker = LlmRecRanker(LlmRecSettings(max_history=800))
    with pytest.raises(ConfigError, match=r"800 titles of \d+ tokens make \d+ tokens, and base 'nano' reads 2048"):
        ranker.fit(checkerboard())


def test_another_base_is_refused(tmp_path: Path) -> None:
    shipped, base = shipped_base("nano"), tmp_path / "base"
    assert shipped is not None
    shutil.copytree(shipped, base)
    ranker = LlmRecRanker(LlmRecSettings(base=str(base), epochs=1, epoch_steps=1, rank=2, negatives=1))
    ranker.fit(checkerboard())
    save_ranker(ranker, tmp_path)
    load_ranker(LlmRecRanker(), tmp_path)
    config = base / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ArtifactError, match="is not the one that ranker 'llm_rec' was trained on"):
        load_ranker(LlmRecRanker(), tmp_path)
