"""Several domains side by side in one order of numbers, and what a training loop does besides for slow models."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from sequences import purchases

from recmerge.rankers.sequential.batches import Rows
from recmerge.rankers.sequential.purchases import mix, mixed_questions, read_purchases
from recmerge.rankers.sequential.training import train
from tests.rankers.sequential.test_purchases import domain
from tests.rankers.sequential.test_training import SCHEDULE, Slope, rows

CPU = torch.device("cpu")


def test_domains_are_numbered_on() -> None:
    mixed = mix([purchases([1, 2, 3], [2, 1], n_items=4), purchases([3, 1], n_items=3)])
    assert mixed.edges.tolist() == [1, 5, 8]
    assert mixed.starts.tolist() == [0, 3, 5, 7]
    assert mixed.bought.tolist() == [1, 2, 3, 2, 1, 7, 5]
    batch = Rows(mixed, 9, every_place=True, device=CPU).batch(torch.arange(3).numpy())
    assert batch.whole().tolist() == [[1, 2, 3], [0, 2, 1], [0, 7, 5]]


def test_questions_of_several_domains_are_of_the_shortest_lists_with_their_targets() -> None:
    shop = read_purchases(domain())
    alone = mixed_questions([shop], 9)
    assert alone is not None
    assert (alone.starts.tolist(), alone.bought.tolist(), alone.targets.tolist()) == ([0, 2, 4], [3, 4, 4, 2], [1, 3])
    longer = read_purchases(replace(domain(), candidates=domain().candidates.with_columns(pl.Series("candidates", [["e", "d", "c"], ["b", "x", "a"]]))))
    found = mixed_questions([shop, longer], 9)
    assert found is not None
    assert found.starts.tolist() == [0, 2, 4, 6, 8]
    assert found.bought.tolist() == [3, 4, 4, 2, 8, 9, 9, 7]
    assert found.targets.tolist() == [1, 3, 6, 8]
    assert [set(row) for row in found.candidates.tolist()] == [{2, 1}, {3, 5}, {6, 7}, {8, 10}]


def test_an_epoch_can_be_some_steps_and_is_announced() -> None:
    model, begun = Slope(), list[int]()
    outcome = train(model, rows(), replace(SCHEDULE, epochs=3, epoch_steps=1), None, seed=0, before_epoch=lambda: begun.append(len(model.seen)))
    assert (outcome.epochs, begun, len(model.seen)) == (3, [0, 1, 2], 3)


def test_another_judge_decides_which_model_is_kept() -> None:
    model, asked, verdicts = Slope(), mixed_questions([read_purchases(domain())], 9), iter([0.1, 0.7, 0.3, 0.2, 0.1])
    outcome = train(model, rows(), SCHEDULE, asked, seed=0, judge=lambda given: next(verdicts) if given is asked else 0.0)
    assert (outcome.best_epoch, outcome.stopped_by, outcome.facts()["best_ndcg@10"]) == (2, "patience", 0.7)
    assert model.number.item() == pytest.approx(0.4, abs=0.01)  # two epochs of two steps of 0.1
