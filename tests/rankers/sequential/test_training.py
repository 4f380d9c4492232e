"""The loop, on a model of one number: its score for item 1 is `place`, for every other item 0."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sequences import purchases
from torch import nn

from recmerge.errors import ConfigError
from recmerge.rankers.bert4rec import Bert4RecModel, Bert4RecSettings
from recmerge.rankers.sequential import batches
from recmerge.rankers.sequential.batches import Batch, Rows
from recmerge.rankers.sequential.model import IdItems, NextItemModel, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import Asked
from recmerge.rankers.sequential.training import Outcome, Schedule, train, validation_ndcg

CPU = torch.device("cpu")
SCHEDULE = Schedule(
    epochs=20,
    batch_size=2,
    learning_rate=0.1,
    weight_decay=0.0,
    patience=3,
    eval_every=1,
    seconds=None,
    max_history=5,
    whole_catalogue=False,
)


class Last(SequenceEncoder):
    def forward(self, bought: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return bought


class Slope(SequentialModel):
    """Its loss is a slope down which the number slides by the learning rate a step."""

    fewest = None

    def __init__(self, start: float = 0.0, direction: float = 1.0) -> None:
        super().__init__(IdItems(9, 1), Last())
        self.number = nn.Parameter(torch.tensor([start]))
        self.direction = direction
        self.items.requires_grad_(False)
        self.seen: list[list[int]] = []
        self.modes: list[bool] = []

    def users(self, batch: Batch) -> torch.Tensor:
        return self.number.expand(len(batch.users), 1)

    def scored(self) -> torch.Tensor:
        return nn.functional.one_hot(torch.tensor(1), 10).float()[:, None]

    def loss(self, batch: Batch) -> torch.Tensor:
        self.seen.append(batch.users.tolist())
        self.modes.append(self.training)
        return -self.direction * self.number.sum()


def rows() -> Rows:
    return Rows(purchases([1, 2], [3, 4], [5, 6], [7, 8]), 5, every_place=True, device=CPU)


def asked(target: int = 1, *, other: int = 2) -> Asked:
    return Asked(np.asarray([0]), np.asarray([0, 1]), np.asarray([9]), np.asarray([[target, other]]), np.asarray([target]))


def run(model: Slope, questions: Asked | None = None, **changed: object) -> Outcome:
    return train(model, rows(), replace(SCHEDULE, **changed), questions, seed=1)


def test_without_validation_all_epochs_are_trained_and_the_last_model_stays() -> None:
    model = Slope()
    outcome = run(model, epochs=3)
    assert (outcome.epochs, outcome.best_epoch, outcome.stopped_by) == (3, 3, "epochs")
    assert float(model.number.detach()) == pytest.approx(3 * 2 * 0.1, rel=1e-4)  # two batches an epoch; Adam's steps on a slope are the rate
    assert [e["ndcg@10"] for e in outcome.curve] == [None] * 3
    assert not model.training
    assert all(model.modes)


def test_losses_are_means_since_the_last_evaluation() -> None:
    outcome = run(Slope(), epochs=4, eval_every=2)
    assert [e["epoch"] for e in outcome.curve] == [2, 4]
    assert [e["loss"] for e in outcome.curve] == pytest.approx([-0.15, -0.55], rel=1e-3)  # numbers 0 to .3, then .4 to .7


def test_patience_ends_and_the_best_model_is_restored() -> None:
    model = Slope(start=-0.3)
    outcome = run(model, asked())  # below 0 item 1 is last of two, then first: epoch 1 ends at -.1, epoch 2 at .1
    assert outcome.stopped_by == "patience"
    assert outcome.best_epoch == 2
    assert outcome.epochs == 2 + 3
    assert float(model.number.detach()) == pytest.approx(0.1, rel=1e-3)
    assert [e["ndcg@10"] for e in outcome.curve] == pytest.approx([1 / np.log2(3), 1, 1, 1, 1])
    assert outcome.facts()["best_ndcg@10"] == 1


def test_a_model_that_gets_worse_is_restored_to_its_first_epoch() -> None:
    model = Slope(start=0.3, direction=-1)
    outcome = run(model, asked(), patience=2)
    assert (outcome.best_epoch, outcome.epochs) == (1, 3)
    assert float(model.number.detach()) == pytest.approx(0.1, rel=1e-3)


def test_what_came_is_kept_where_training_only_makes_it_worse() -> None:
    model, begun = Slope(start=0.05, direction=-1), []
    outcome = train(model, rows(), replace(SCHEDULE, judge_first=True), asked(), seed=1, before_epoch=lambda: begun.append(float(model.number.detach())))
    assert (outcome.best_epoch, outcome.epochs, outcome.best) == (0, 3, 1)
    assert float(model.number.detach()) == pytest.approx(0.05)
    assert (outcome.curve[0]["epoch"], outcome.curve[0]["loss"]) == (0, None)
    assert begun[0] == begun[1] == pytest.approx(0.05)
    assert run(Slope(), epochs=1, judge_first=True).best_epoch == 1  # nobody to ask


def test_patience_counts_evaluations() -> None:
    assert run(Slope(start=1.0), asked(), patience=2, eval_every=3).epochs == 9


def test_a_deadline_that_is_over_leaves_one_step() -> None:
    model = Slope()
    outcome = train(model, rows(), SCHEDULE, asked(), seed=1, deadline=time.monotonic() - 1)
    assert (outcome.stopped_by, outcome.epochs, len(model.seen)) == ("minutes", 1, 1)
    assert len(outcome.curve) == 1


def test_minutes_end_training() -> None:
    outcome = run(Slope(), seconds=0.2, epochs=1_000_000)
    assert outcome.stopped_by == "minutes"
    assert 0.2 <= outcome.seconds < 5


def test_processor_time_does_not_pass_while_nothing_is_computed() -> None:
    def judge(questions: Asked) -> float:
        time.sleep(0.2)
        return 0.5

    outcome = train(Slope(), rows(), replace(SCHEDULE, seconds=0.3, clock="cpu", epochs=3), asked(), seed=1, judge=judge)
    assert (outcome.stopped_by, outcome.epochs) == ("epochs", 3)
    assert outcome.seconds < 0.3


def test_the_last_evaluation_is_within_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s and evaluations of 10 s by a clock that only they move."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Slow(Slope):
        def loss(self, batch: Batch) -> torch.Tensor:
            now[0] += 1
            return super().loss(batch)

    def judge(questions: Asked) -> float:
        now[0] += 10
        return now[0]

    outcome = train(Slow(), rows(), replace(SCHEDULE, seconds=60.0, epochs=1000), asked(), seed=1, judge=judge)
    assert outcome.stopped_by == "minutes"
    assert 60 <= outcome.seconds <= 61  # a step more than fits


def test_parts_of_a_step_teach_what_the_whole_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 1 to 5 questions: each question counts alike, however the step is read."""
    shop = Rows(purchases([1, 2], [3, 4, 5], [5, 6, 1, 2], [7, 8, 1, 2, 3, 4]), 5, every_place=True, device=CPU)

    class Tables(NextItemModel):
        def expectations(self, batch: Batch) -> torch.Tensor:
            return self.items.read(batch.items)

    monkeypatch.setattr(batches, "_PART", 0)  # every length is a batch of its own
    moved = []
    for fewest in (None, 2, 1):
        torch.manual_seed(0)
        model = Tables(IdItems(9, 3), Last(), by_pairs=False, negatives=0)
        model.fewest = fewest
        outcome = train(model, shop, replace(SCHEDULE, epochs=3, batch_size=4), None, seed=1)
        moved.append((model.scored().detach(), outcome.curve[-1]["loss"]))
    for vectors, loss in moved[1:]:
        torch.testing.assert_close(vectors, moved[0][0], rtol=1e-3, atol=1e-4)
        assert loss == pytest.approx(moved[0][1], rel=1e-5)


@pytest.mark.parametrize("last_ratio", [0.0, 1.0])
def test_parts_weigh_as_many_questions_as_their_loss_is_of(last_ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose every place is hidden, or the last alone: BERT4Rec's questions are not its rows' targets."""
    shop = Rows(purchases([1, 2], [3, 4], [5, 6, 1, 2], [7, 8, 1, 2, 3, 4]), 5, every_place=True, device=CPU)
    monkeypatch.setattr(batches, "_PART", 0)
    moved = []
    for fewest in (None, 1):
        torch.manual_seed(0)
        model = Bert4RecModel(9, Bert4RecSettings(width=8, heads=2, inner=16, max_history=5, dropout=0.0, mask_ratio=1.0, last_ratio=last_ratio))
        model.fewest = fewest
        train(model, shop, replace(SCHEDULE, epochs=2, batch_size=4, learning_rate=0.01), None, seed=1)
        moved.append(model.scored().detach())
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-4)


def test_equal_seeds_give_equal_orders() -> None:
    first, again, other = Slope(), Slope(), Slope()
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        train(model, rows(), SCHEDULE, None, seed=seed)
    assert first.seen == again.seen != other.seen
    assert all(sorted(first.seen[2 * e] + first.seen[2 * e + 1]) == [1, 2, 3, 4] for e in range(20))


def test_nothing_to_learn_from() -> None:
    model = Slope(start=0.5)
    empty = Rows(purchases([1]), 5, every_place=True, device=CPU)
    outcome = train(model, empty, SCHEDULE, asked(), seed=1)
    assert (outcome.epochs, outcome.best_epoch, outcome.curve) == (0, 0, [])
    assert float(model.number.detach()) == 0.5


def test_a_loss_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(ConfigError, match="the mean loss of an epoch is nan"):
        run(Slope(start=float("nan")))


def test_another_loss_and_frozen_weights() -> None:
    model = Slope()
    train(model, rows(), replace(SCHEDULE, epochs=1), None, seed=1, loss=lambda batch: model.number.sum())
    assert float(model.number.detach()) == pytest.approx(-0.2, rel=1e-4)
    assert model.items.table().grad is None


@pytest.mark.parametrize(
    ("number", "target", "candidates", "catalogue"),
    [(1.0, 1, 1.0, 1.0), (-1.0, 1, 1 / np.log2(3), 1 / np.log2(9)), (1.0, 2, 1 / np.log2(3), None), (0.0, 1, (1 + 1 / np.log2(3)) / 2, None)],
)
def test_validation_by_hand(number: float, target: int, candidates: float, catalogue: float | None) -> None:
    """Item 9 was bought: the catalogue's ranking has eight places."""
    question = asked(target, other=3 - target)
    assert validation_ndcg(Slope(number), question, 5) == pytest.approx(candidates)
    if catalogue is not None:
        assert validation_ndcg(Slope(number), question, 5, whole_catalogue=True) == pytest.approx(catalogue)


def test_a_target_that_is_listed_twice_ties_with_itself() -> None:
    question = Asked(np.asarray([0]), np.asarray([0, 1]), np.asarray([9]), np.asarray([[2, 1, 1]]), np.asarray([1]))
    assert validation_ndcg(Slope(1.0), question, 5) == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_what_was_bought_long_ago_is_no_place_of_the_catalogue() -> None:
    """Number -1: item 1 is last of the eight, or six, that were not bought."""
    question = Asked(np.asarray([0]), np.asarray([0, 3]), np.asarray([7, 8, 9]), np.asarray([[1, 2]]), np.asarray([1]))
    for max_history in (1, 3):
        assert validation_ndcg(Slope(-1.0), question, max_history, whole_catalogue=True) == pytest.approx(1 / np.log2(7))


def test_users_without_a_history_count_as_tied_throughout() -> None:
    nobody = Asked(np.asarray([0]), np.asarray([0, 0]), np.asarray([], dtype=np.int64), np.asarray([[1, 2]]), np.asarray([1]))
    assert validation_ndcg(Slope(1.0), nobody, 5) == pytest.approx((1 + 1 / np.log2(3)) / 2)
