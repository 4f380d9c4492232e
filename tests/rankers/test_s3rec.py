"""What S3-Rec adds to SASRec: four tasks before."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from baskets import basket_domain
from sequences import batch, lively

from recmerge.rankers.s3rec import S3RecModel, S3RecRanker, S3RecSettings, segments

SIZES = {"n_items": 6, "n_attributes": 4, "attributes_per_item": 3}
TABLE = np.asarray([[0, 0, 0], [1, 2, 3], [1, 0, 0], [2, 4, 0], [0, 0, 0], [3, 0, 0], [4, 1, 0]])
WIDTH = 8
OFF = {"aap_weight": 0, "mip_weight": 0, "map_weight": 0, "sp_weight": 0}


def model(**settings: Any) -> S3RecModel:
    made = S3RecModel(SIZES, S3RecSettings(width=WIDTH, heads=2, inner=16, max_history=6, **settings))
    made.attributes.furnish(TABLE)
    lively(made)
    return made


def log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.log(1 / (1 + torch.exp(-x)))


def test_attributes_are_predicted_one_by_one() -> None:
    s3rec, items = model(), torch.tensor([1, 4, 6])
    vectors = torch.randn(3, WIDTH)
    chances = torch.sigmoid(vectors @ s3rec.attributes.embedding.weight[1:].T)
    truth = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]).float()
    expected = -(truth * chances.log() + (1 - truth) * (1 - chances).log()).sum()
    assert s3rec.attribute_loss(vectors, items).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_hidden_item_is_told_from_another() -> None:
    s3rec, vectors = model(), torch.randn(2, WIDTH)
    right, wrong = torch.tensor([1, 2]), torch.tensor([5, 6])
    scores = [torch.sigmoid((vectors * s3rec.scored()[numbers]).sum(-1)) for numbers in (right, wrong)]
    assert s3rec.masked_item_loss(vectors, right, wrong).item() == pytest.approx(-log_sigmoid(scores[0] - scores[1]).sum().item(), rel=1e-5)


def test_a_segment_is_told_from_a_foreign_one() -> None:
    s3rec, items = model(), torch.tensor([[0, 1, 2, 3]])
    inside = torch.tensor([[False, False, True, False]])
    others = torch.tensor([[0, 1, 5, 3]])
    outside = torch.tensor([[False, True, False, True]])
    context, right, wrong = s3rec.both_sides(items, inside)[:, -1], s3rec.both_sides(items, outside)[:, -1], s3rec.both_sides(others, outside)[:, -1]
    asked = s3rec.tasks["sp"](context)
    expected = -log_sigmoid(torch.sigmoid((asked * right).sum(-1)) - torch.sigmoid((asked * wrong).sum(-1))).sum()
    assert s3rec.segment_loss(items, inside, others).item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_hidden_item_is_not_seen_and_both_sides_are() -> None:
    s3rec = model()
    hidden = torch.tensor([[False, True, False, False]])
    one, other = (s3rec.both_sides(torch.tensor([[1, second, 3, 4]]), hidden) for second in (2, 6))
    assert torch.equal(one, other)
    later = s3rec.both_sides(torch.tensor([[1, 2, 3, 5]]), hidden)
    assert (later[:, 0] - one[:, 0]).abs().max() > 1e-3


def test_after_the_tasks_no_place_sees_a_later_one() -> None:
    s3rec = model()
    s3rec.self_supervised(batch([1, 2, 3, 4]))
    one, other = (s3rec.expectations(batch([1, 2, third, 5])) for third in (3, 6))
    assert one[:, :2].detach() == pytest.approx(other[:, :2].detach(), abs=1e-6)


def test_padding_changes_nothing() -> None:
    s3rec = model()
    items, hidden = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, False]])
    more = [torch.nn.functional.pad(x, (3, 0)) for x in (items, hidden)]
    assert s3rec.both_sides(*more)[:, -3:].detach() == pytest.approx(s3rec.both_sides(items, hidden).detach(), abs=1e-6)


def test_segments_are_runs_of_at_most_half_a_row() -> None:
    rows = [[0, 0, 1, 2], [3, 4, 5, 6], [0, 1, 2, 3]]
    sizes: list[set[int]] = [set(), set(), set()]
    starts: list[set[int]] = [set(), set(), set()]
    flat = [item for row in rows for item in row if item]
    neighbours = {(a, b) for a, b in zip(flat, [*flat[1:], flat[0]], strict=True)}
    torch.manual_seed(0)
    for _ in range(200):
        inside, others = segments(torch.tensor(rows))
        for row, items in enumerate(rows):
            places = inside[row].nonzero()[:, 0].tolist()
            assert places == list(range(places[0], places[0] + len(places)))
            assert all(items[place] for place in places)
            assert [n for place, n in enumerate(others[row].tolist()) if place not in places] == [n for place, n in enumerate(items) if place not in places]
            foreign = [int(others[row, place]) for place in places]
            assert all(pair in neighbours for pair in pairwise(foreign))
            sizes[row].add(len(places))
            starts[row].add(places[0])
    assert sizes == [{1}, {1, 2}, {1}]
    assert starts == [{2, 3}, {0, 1, 2, 3}, {1, 2, 3}]


@pytest.mark.parametrize("task", ["aap", "mip", "map", "sp"])
def test_each_task_is_weighed(task: str) -> None:
    asked = batch([1, 2, 3, 4, 5], [6, 5, 3])
    found = []
    for weight in (1.0, 3.0):
        s3rec = model(mask_ratio=0.5, **{**OFF, f"{task}_weight": weight})
        torch.manual_seed(0)
        found.append(float(s3rec.self_supervised(asked).detach()))
    assert found[1] == pytest.approx(3 * found[0], rel=1e-5)
    assert found[0] > 0


def test_the_newest_purchase_is_always_hidden() -> None:
    s3rec, asked = model(mask_ratio=1e-9, **{**OFF, "map_weight": 1}), batch([1, 2, 3], [4, 5])
    items = asked.whole()
    hidden = torch.tensor([[False, False, True], [False, False, True]])
    expected = s3rec.attribute_loss(s3rec.tasks["map"](s3rec.both_sides(items, hidden)[:, -1]), torch.tensor([3, 5])) / 5
    assert s3rec.self_supervised(asked).item() == pytest.approx(expected.item(), rel=1e-5)


def test_who_bought_everything_has_no_other_item_to_tell_it_from() -> None:
    s3rec, vectors = model(), torch.randn(2, WIDTH)
    one = s3rec.masked_item_loss(vectors[:1], torch.tensor([1]), torch.tensor([5]))
    assert s3rec.masked_item_loss(vectors, torch.tensor([1, 2]), torch.tensor([5, 0])).item() == pytest.approx(one.item())


def test_hidden_and_shown_share_the_attributes_out() -> None:
    """With one layer for both tasks, and nothing learnt of places (all vectors equal), the two losses are those of all purchases."""
    s3rec = model(mask_ratio=0.5, **{**OFF, "aap_weight": 1, "map_weight": 1})
    with torch.no_grad():
        for task in ("aap", "map"):
            s3rec.tasks[task].weight.zero_()  # type: ignore[operator, union-attr]
            s3rec.tasks[task].bias.fill_(0.3)  # type: ignore[operator, union-attr]
    asked = batch([1, 2, 3, 4, 5], [6, 5, 3])
    items = asked.whole()[asked.whole() > 0]
    expected = s3rec.attribute_loss(torch.full((8, WIDTH), 0.3), items) / 8
    assert s3rec.self_supervised(asked).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_tasks_teach_all_that_stays() -> None:
    s3rec = model(mask_ratio=0.5)
    torch.manual_seed(1)
    s3rec.self_supervised(batch([1, 2, 3, 4, 5, 6], [6, 5, 3], [2, 4])).backward()
    assert [name for name, weights in s3rec.named_parameters() if weights.grad is None or not weights.grad.any()] == []


def test_the_first_stage_has_a_share_of_the_minutes_and_of_as_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = basket_domain({f"u{u}": "abcd"[u % 2 :] for u in range(6)})
    items = pl.DataFrame({"item_id": list("abcdyz"), "title": list("abcdyz"), "brand": ["x"] * 6, "category": [""] * 6})
    domain = replace(domain, items=items, candidates=domain.events.head(0).with_columns(target=pl.lit(""), candidates=pl.lit([""])))
    ranker = S3RecRanker(S3RecSettings(epochs=4, width=8))
    ranker.fit(domain)
    told = ranker.facts["training"]["sports"]
    assert (told["pretraining"]["epochs"], told["epochs"]) == (2, 4)
    alone = S3RecRanker(S3RecSettings(epochs=4, width=8, pretraining=0))
    alone.fit(domain)
    assert "pretraining" not in alone.facts["training"]["sports"]
    short = S3RecRanker(S3RecSettings(epochs=10_000, width=8, minutes=0.01, pretraining=0.5))
    short.fit(domain)
    told = short.facts["training"]["sports"]
    assert told["stopped_by"] == told["pretraining"]["stopped_by"] == "minutes"
    assert told["pretraining"]["seconds"] == pytest.approx(0.3, abs=0.25)
    assert told["pretraining"]["seconds"] + told["seconds"] == pytest.approx(0.6, abs=0.4)
