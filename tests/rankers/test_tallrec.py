"""What TALLRec adds: a question with Yes or No for each candidate, asked of all in one pass."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from sequences import batch, value
from torch.nn import functional

from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.title_tree import Question
from recmerge.lm.yes_no import YesNoEncoder
from recmerge.rankers import CatalogueRanker
from recmerge.rankers.sequential.purchases import read_purchases
from recmerge.rankers.sequential.ranker import Fitted
from recmerge.rankers.tallrec import TallRecModel, TallRecRanker, TallRecSettings
from tests.rankers.test_contract import checkerboard, questions


@cache
def ranker() -> TallRecRanker:
    """Of the checkerboard, untrained, its LoRA doing something."""
    made, purchases = TallRecRanker(TallRecSettings(negatives=2, batch_size=3)), read_purchases(checkerboard())
    model = made.build(made.measure(purchases))
    made.furnish(model, purchases)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw) * 0.2)
    model.prepare()
    made.fitted = {"sports": Fitted(purchases.items, {}, {}, model)}
    return made


def model() -> TallRecModel:
    made: Any = ranker().fitted["sports"].model
    return made  # type: ignore[no-any-return]


@torch.no_grad()
def asked_alone(question: Question, place: int) -> torch.Tensor:
    """The logits (V,) of the answer's first token for one candidate: one sequence, no tree, no batch."""
    ids = torch.tensor([[*question.prompt, *question.answers[place][:-1]]])
    return model().lm.held.model(input_ids=ids).logits[0, -1]


def test_margins_are_those_of_each_question_alone() -> None:
    yes, no = model().asks.answers
    asked = [model().question([1, 2, 3], [4, 5, 0, 6]), model().question([7], [8, 4])]
    for question, found in zip(asked, model().margins(asked), strict=True):
        alone = [asked_alone(question, place) for place in range(len(question.answers))]
        assert found.tolist() == pytest.approx([value(logits[yes] - logits[no]) for logits in alone], abs=1e-4)


def test_scores_are_margins_and_the_history_is_cut() -> None:
    purchases = read_purchases(checkerboard())
    example = replace(questions()[0], history=("o3",) * 5 + ("all", "e1") * 5)
    found = ranker().score([example])[0]
    numbers = [purchases.items[item] for item in ("all", "e1") * 5]
    margins = model().margins([model().question(numbers, [purchases.items[c] for c in example.candidates])])[0]
    assert found == pytest.approx(margins.detach().numpy(), abs=1e-4)
    assert np.ptp(found) > 0.01


def test_the_loss_is_yes_for_the_purchase_and_no_for_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.tensor([[[4, 5]], [[6, 0]]])  # one draw found nothing
    monkeypatch.setattr("recmerge.rankers.tallrec.draw_negatives", lambda n_items, n, history: drawn)
    yes, no = model().asks.answers
    by_hand = []
    for history, candidates in (([1, 2], [3, 4, 5]), ([7], [8, 6])):
        asked = model().question(history, candidates)
        for place in range(len(candidates)):
            by_hand.append(value(functional.cross_entropy(asked_alone(asked, place)[None], torch.tensor([no if place else yes]))))
    assert value(model().loss(batch([1, 2, 3], [7, 8], every_place=False))) == pytest.approx(sum(by_hand) / 5, abs=1e-4)


def test_gradients_reach_the_lora_on_q_and_v_alone() -> None:
    model().loss(batch([1, 2, 3], [7, 8], every_place=False)).backward()
    assert {name.split("/")[-2] for name in model().lm.lora} == {"q_proj", "v_proj"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model().parameters())
    model().zero_grad()


def test_validation_is_ranked_by_the_scores() -> None:
    purchases = read_purchases(checkerboard())
    number, lists = purchases.items, ("unseen", "late", "all", "e0", "o0")
    example = replace(questions()[0], candidates=lists)
    order = np.argsort(-ranker().score([example])[0])
    from recmerge.rankers.sequential.purchases import read_questions

    for rank, place in enumerate(order, start=1):
        asked = read_questions([replace(example, target=lists[place])], number, {})
        assert ranker()._ndcg(model(), asked) == pytest.approx(1 / np.log2(rank + 1), abs=1e-9)


def test_the_whole_catalogue_is_too_much_to_ask() -> None:
    assert not isinstance(ranker(), CatalogueRanker)


def test_questions_in_words_and_without() -> None:
    tokenizer = model().lm.held.encoder.tokenizer
    worded, bare = (YesNoEncoder(Encoder(tokenizer, PromptSettings(style, max_length=60))) for style in ("listwise", "open"))  # type: ignore[arg-type]
    titles = [worded.encoder.title(title) for title in ("Yoga Mat", "Face Cream")]
    text = tokenizer.decode([*worded.question(titles, 8), *titles[0], *worded.ending])
    assert text == "You say Yes or No.\n\nBought so far:\n- Yoga Mat\n- Face Cream\nYes or No: is this bought next?\n- Yoga Mat\n\nAnswer:"
    assert bare.question(titles, 8) == (*bare.encoder.start_ids, *titles[0], bare.encoder.end_id, *titles[1], bare.encoder.end_id)
    assert bare.ending == (bare.encoder.end_id,)
    assert len(worded.question(titles * 50, 8)) <= 52
    assert worded.question(titles * 50, 8)[-5:] == worded.question([], 8)[-5:]  # the oldest give way, not the question
    yes, no = worded.answers
    assert "Yes".startswith(tokenizer.decode([yes]))
    assert "No".startswith(tokenizer.decode([no]))
