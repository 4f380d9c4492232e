"""What RecFormer adds: words of attributes, four embeddings, a window, hidden words, and stages."""

from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch
from sequences import batch, lively, value
from torch.nn import functional

from recmerge.data.training_set import TrainingSet
from recmerge.lm.base import find, load_tokenizer
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.rankers.recformer import RecFormerModel, RecFormerRanker, RecFormerSettings
from recmerge.rankers.sequential.purchases import read_purchases
from recmerge.rankers.sequential.training import Outcome
from recmerge.rankers.sequential.words import attribute_words, cut_somewhere, hide
from tests.rankers.test_contract import checkerboard, questions, turned_round

SIZES = {"n_items": 9, "longest": 4, "n_words": 30}
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "inner": 16, "dropout": 0.0, "max_history": 6}


def model(**settings: Any) -> RecFormerModel:
    """Item n has n % 3 + 2 words; the first is a key."""
    made = RecFormerModel(SIZES, RecFormerSettings(**SMALL | settings))
    for n in range(1, 10):
        length = n % 3 + 2
        made.items.words[n, :length] = torch.arange(length) + 2 * n
        made.items.kinds[n, :length] = torch.tensor([1, 2, 2, 2])[:length]
    lively(made)
    made.refresh()
    return made


@torch.no_grad()
def read_alone(made: RecFormerModel, items: list[int]) -> torch.Tensor:
    """The first place's state of purchases, the newest first, by loops over words."""
    encoder = made.encoder
    rows = [encoder.first + encoder.kinds.weight[0] + encoder.positions.weight[0] + encoder.places.weight[0]]
    for place, item in enumerate(reversed(items), start=1):
        for word, kind in zip(made.items.words[item].tolist(), made.items.kinds[item].tolist(), strict=True):
            if word >= 0 and len(rows) < made.settings.max_tokens:
                rows.append(encoder.words.weight[word] + encoder.kinds.weight[kind] + encoder.positions.weight[len(rows)] + encoder.places.weight[place])
    vectors, n, reach = encoder.edge(torch.stack(rows))[None], len(rows), made.settings.window // 2
    visible = torch.tensor([[abs(i - j) <= reach or not i or not j for j in range(n)] for i in range(n)])
    for block in encoder.blocks:
        vectors = block(vectors, visible[None, None])
    return vectors[0, 0]


@pytest.mark.parametrize("settings", [{}, {"window": 2}, {"max_tokens": 6}], ids=["", "narrow window", "few words"])
def test_users_and_items_are_what_their_words_say_together(settings: dict[str, int]) -> None:
    made = model(**settings)
    found = made.users(batch([3, 1, 4, 1, 5, 9], [2, 6], width=6)).detach()
    for row, items in zip(found, ([3, 1, 4, 1, 5], [2]), strict=True):
        assert torch.allclose(row, functional.normalize(read_alone(made, items), dim=0), atol=1e-5)
    for item in (1, 7):
        assert torch.allclose(made.items.table()[item], read_alone(made, [item]), atol=1e-5)
    assert torch.allclose(made.items.table()[0], read_alone(made, []), atol=1e-5)  # the cold one says nothing
    assert made.scored().norm(dim=1).tolist() == pytest.approx([1.0] * 10, abs=1e-5)


def test_the_window_hides_what_is_far_and_the_first_place_sees_it() -> None:
    made = model(window=2, blocks=1)
    words, kinds, places = made.lay_out(torch.tensor([[3, 1, 4, 1, 5]]))
    other = words.clone()
    other[0, -1] += 1
    before, after = (made.read_words(w, kinds, places)[0].detach() for w in (words, other))
    moved = (before - after).abs().amax(1) > 1e-5
    assert moved.nonzero().flatten().tolist() == [0, len(moved) - 2, len(moved) - 1]


def test_words_are_laid_out_newest_first_and_padding_is_left_out() -> None:
    words, kinds, places = model().lay_out(torch.tensor([[0, 0, 3, 1], [0, 2, 0, 0]]))  # 1 has 3 words, 3 has 2, 2 has 4
    assert words.tolist() == [[2, 3, 4, 6, 7], [4, 5, 6, 7, -1]]
    assert kinds.tolist() == [[1, 2, 2, 1, 2], [1, 2, 2, 2, 0]]
    assert places[:, :4].tolist() == [[1, 1, 1, 2], [1, 1, 1, 1]]


def test_an_earlier_purchase_counts_and_what_is_cut_off_does_not() -> None:
    made = model()
    users = [made.users(batch([*row, 9])).detach() for row in ([3, 1], [2, 1])]
    assert (users[0] - users[1]).abs().max() > 1e-3
    items, _ = cut_somewhere(batch([3, 1, 4]))
    assert items.tolist() in ([[3, 0]], [[3, 1]])
    assert torch.allclose(made.users(replace(batch([3, 1, 9]), items=torch.tensor([[3, 0]]))), made.users(batch([3, 9])), atol=1e-6)


def test_one_question_of_each_row_is_drawn_and_what_follows_it_is_cut_off() -> None:
    rows, found = batch([3, 1, 4, 5], [2, 6], width=4), set()
    for _ in range(100):
        items, targets = cut_somewhere(rows)
        found.add((tuple(items[0].tolist()), targets[0].item()))
        assert (items[1].tolist(), targets[1].item()) == ([0, 0, 0, 2], 6)
    assert found == {((0, 3, 0, 0), 1), ((0, 3, 1, 0), 4), ((0, 3, 1, 4), 5)}


def test_most_hidden_words_are_marked_few_changed_few_kept_and_no_other() -> None:
    torch.manual_seed(0)
    words, hidden = torch.full((1, 20000), 7), torch.arange(20000)[None] % 2 == 0
    shown = hide(words, hidden, 1000)
    assert (shown[~hidden] == 7).all()
    assert (shown[hidden] == 1000).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (shown[hidden] == 7).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_losses_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    made, rows = model(temperature=0.5, masked=0.0), batch([3, 1], [2, 6], [4, 1])
    said = functional.normalize(torch.stack([read_alone(made, [n]) for n in (3, 2, 4)]), dim=1)
    targets = torch.tensor([1, 6, 1])
    assert value(made.loss(rows)) == pytest.approx(value(functional.cross_entropy(said @ made.scored().T / 0.5, targets)), abs=1e-4)
    cosines = said @ made.scored()[targets].T / 0.5
    cosines[0, 2] = cosines[2, 0] = -torch.inf  # the same item is no negative
    by_hand = value(functional.cross_entropy(cosines, torch.arange(3)))
    assert value(made.transfer_loss(rows)) == pytest.approx(by_hand, abs=1e-4)
    guessing = model(temperature=0.5, masked=0.99, guessing=1.0)
    monkeypatch.setattr("recmerge.rankers.recformer.hide", lambda words, hidden, mark: words)  # all are to be guessed, none is hidden
    words, kinds, places = guessing.lay_out(rows.items)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(*shape))
    states = guessing.read_words(words, kinds, places)[:, 1:][words >= 0]
    guessed = functional.cross_entropy(guessing.guess(states) @ guessing.encoder.words.weight[:-1].T, words[words >= 0])
    assert value(guessing.transfer_loss(rows)) == pytest.approx(by_hand + value(guessed), abs=1e-4)


def test_items_are_fixed_in_the_last_stages_and_taught_in_the_first() -> None:
    made = model().train()
    made.loss(batch([3, 1], [2, 6])).backward()
    read = {3, 2}  # whose words were read as purchases: 3 has the words 6 and 7, 2 has 4 to 7
    assert made.encoder.words.weight.grad is not None
    assert set(made.encoder.words.weight.grad.abs().sum(1).nonzero().flatten().tolist()) == {w for n in read for w in made.items.words[n].tolist() if w >= 0}
    made.zero_grad()
    made.transfer_loss(batch([3, 1], [2, 6])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_the_encoder_reads_any_vectors() -> None:
    made, vectors = model(), torch.randn(2, 3, 8)
    known = torch.tensor([[False, True, True], [True, True, True]])
    found = made.encoder(vectors, known).detach()
    assert found.shape == (2, 3, 8)
    assert torch.allclose(found[0], made.encoder(vectors[:1, 1:], known[:1, 1:])[0, :1].detach().expand(3, -1), atol=1e-5)
    vectors[0, 0] = 9.0  # padding
    assert torch.allclose(found, made.encoder(vectors, known).detach(), atol=1e-6)


def test_attributes_become_keys_and_cut_values_and_unknown_ones_are_left_out() -> None:
    encoder = Encoder(load_tokenizer(find("nano")), PromptSettings(max_title_tokens=3))
    domain = checkerboard()
    items = domain.items.with_columns(brand=pl.when(pl.col("item_id") == "e1").then(pl.lit("LEGO")).otherwise(pl.lit("")))
    purchases = read_purchases(replace(domain, items=items))
    words, kinds = attribute_words(encoder, purchases)
    for item, known in (("e1", {"title": "Title e1", "brand": "LEGO", "category": "shop e"}), ("o0", {"title": "Title o0", "category": "shop o"})):
        want = [
            (word, kind) for key, text in known.items() for kind, part in ((1, encoder.plain([key])[0]), (2, encoder.plain([text])[0][:3])) for word in part
        ]
        row = purchases.items[item]
        assert list(zip(words[row].tolist(), kinds[row].tolist(), strict=True))[: len(want)] == want
        assert (words[row, len(want) :] == -1).all()
    assert (words[0] == -1).all()


def test_items_are_read_anew_in_the_second_stage_and_the_better_stage_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def refined(self: RecFormerRanker, made: RecFormerModel, purchases: Any, deadline: float | None = None, **more: Any) -> Outcome:
        calls.append("before_epoch" in more)
        with torch.no_grad():
            made.encoder.first.fill_(len(calls))
        return Outcome(epochs=1, curve=[{"epoch": 1, "loss": 1.0, "ndcg@10": 1.0 / len(calls)}])

    monkeypatch.setattr(RecFormerRanker, "refined", refined)
    ranker = RecFormerRanker(RecFormerSettings(**SMALL, pretraining=0.0))
    ranker.fit(checkerboard())
    assert calls == [True, False]
    assert (ranker.fitted["sports"].model.encoder.first == 1).all()  # type: ignore[union-attr]


def test_an_item_with_more_words_than_are_read_is_cut() -> None:
    made = model(max_tokens=3)
    assert torch.allclose(made.items.table()[2], read_alone(made, [2]), atol=1e-5)  # four words, of which two are read


def test_domains_share_the_first_stage() -> None:
    domains = {"beauty": replace(turned_round(), name="beauty"), "sports": checkerboard()}
    ranker = RecFormerRanker(RecFormerSettings(**SMALL, epochs=2, patience=1))
    united = ranker.prepare([read_purchases(d) for d in domains.values()]) or ranker.united_model([read_purchases(d) for d in domains.values()])
    n = len(checkerboard().items)
    for place, (words, kinds) in enumerate(ranker.read.values()):
        assert torch.equal(united.items.words[1 + place * n : 1 + (place + 1) * n, : words.shape[1]], words[1:])
        assert torch.equal(united.items.kinds[1 + place * n : 1 + (place + 1) * n, : kinds.shape[1]], kinds[1:])
    ranker.fit(TrainingSet("beauty_sports", domains, pl.DataFrame()))
    assert ranker.facts["pretraining"]["epochs"] == 1
    assert torch.isfinite(torch.from_numpy(ranker.score([*questions("beauty"), *questions("sports")]))).all()
