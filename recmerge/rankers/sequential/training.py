"""The training loop of all sequential models: until validation users are ranked no better, or the time is over."""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch

from recmerge.errors import ConfigError
from recmerge.evaluation.metrics import expected_metric
from recmerge.rankers.per_domain import Numbers
from recmerge.rankers.sequential.batches import ASKED_AT_ONCE, Batch, Rows, history_batches
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Asked

_METRIC = "ndcg@10"
Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a model is trained.

    Args:
        epochs: Passes over the rows at most.
        batch_size: Rows of a step.
        learning_rate: Of Adam.
        weight_decay: Of AdamW.
        patience: Evaluations in a row without a better ranking of validation users that end training.
        eval_every: Epochs between evaluations.
        seconds: Of training and evaluating at most; None: no limit. With one, equal seeds give equal models on a machine of equal speed only.
        clock: What the seconds are: time that passes, or processor time of all threads of this process.
        max_history: Purchases read at most.
        whole_catalogue: Validation users are asked for the whole catalogue, not for their stored candidates.
        epoch_steps: Steps of an epoch at most, so that a slow model is evaluated before it has seen every row; None: every row once.
        judge_first: Evaluate before the first step too, so that a model which training only makes worse stays as it came.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    eval_every: int
    seconds: float | None
    max_history: int
    whole_catalogue: bool
    epoch_steps: int | None = None
    clock: Clock = "wall"
    judge_first: bool = False

    def now(self) -> float:
        """Return the clock's time, seconds from any beginning."""
        return now(self.clock)

    def is_past(self, deadline: float | None) -> bool:
        """Return whether the clock has reached a deadline; None: there is none."""
        return deadline is not None and self.now() >= deadline


def now(clock: Clock) -> float:
    """Return a clock's time, seconds from any beginning."""
    return time.process_time() if clock == "cpu" else time.monotonic()


@dataclass
class Outcome:
    """What a training did.

    Args:
        epochs: Passes begun.
        best_epoch: After which the model stood that was kept; 0: as it began.
        stopped_by: "patience", "epochs" or "minutes".
        seconds: Of training and evaluating, by the schedule's clock.
        curve: For each evaluation: epoch, mean loss since the last (None: nothing was learnt yet), NDCG@10 of the validation users (None: there are none).
    """

    epochs: int = 0
    best_epoch: int = 0
    stopped_by: str = "epochs"
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """Return what a run's manifest keeps."""
        return {**vars(self), "seconds": round(self.seconds, 1), f"best_{_METRIC}": self.best}

    @property
    def best(self) -> float | None:
        """The highest NDCG@10 of the validation users; None: nobody was asked."""
        return max((e[_METRIC] for e in self.curve if e[_METRIC] is not None), default=None)


def train(
    model: SequentialModel,
    rows: Rows,
    schedule: Schedule,
    asked: Asked | None,
    *,
    seed: int,
    loss: Callable[[Batch], torch.Tensor] | None = None,
    deadline: float | None = None,
    judge: Callable[[Asked], float] | None = None,
    before_epoch: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Train a model and leave it, in eval mode, as it ranked validation users best.

    Args:
        model: On the device where it is trained.
        rows: What it learns from.
        schedule: How long and how fast.
        asked: Validation users; None: train for all epochs and keep the last model.
        seed: Of the order of batches; dropout and negatives draw from torch's own generator, which the caller seeds.
        loss: Of a step, which is then one batch; None: the model's own.
        deadline: By the schedule's clock, where several stages share the seconds; None: those of the schedule from now.
        judge: NDCG@10 of validation users; None: as `validation_ndcg` finds it.
        before_epoch: Is called as each epoch begins.
        say: Is told each evaluation.

    Returns:
        What happened.
    """
    begun = schedule.now()
    if deadline is None and schedule.seconds is not None:
        deadline = begun + schedule.seconds
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True)
    draw = np.random.default_rng(seed)
    outcome, watch = Outcome(), _Watch(model, schedule, asked, judge)
    if schedule.judge_first and asked is not None and len(rows):
        before_epoch()
        say(watch.evaluate(0, outcome))
    for epoch in range(1, schedule.epochs + 1):
        if not len(rows):
            break
        outcome.epochs = epoch
        before_epoch()
        last_step = None if deadline is None else deadline - watch.seconds  # the last evaluation is within the minutes too
        is_over = partial(schedule.is_past, last_step)
        steps = islice(rows.steps(schedule.batch_size, draw, None if loss else model.fewest), schedule.epoch_steps)
        counted = (lambda batch: (loss(batch), 1)) if loss else model.counted_loss
        total = _epoch(model, steps, counted, optimizer, is_over)
        ends = is_over()
        watch.losses.append(total)
        if ends or epoch % schedule.eval_every == 0 or epoch == schedule.epochs:
            say(watch.evaluate(epoch, outcome))
        if ends or watch.n_worse >= schedule.patience:
            outcome.stopped_by = "minutes" if ends else "patience"
            break
    watch.restore(outcome)
    model.eval()
    outcome.seconds = schedule.now() - begun
    return outcome


class _Watch:
    """Keeps the model that ranked validation users best."""

    def __init__(self, model: SequentialModel, schedule: Schedule, asked: Asked | None, judge: Callable[[Asked], float] | None) -> None:
        self.model, self.schedule, self.asked = model, schedule, asked
        self.judge = judge or partial(validation_ndcg, model, max_history=schedule.max_history, whole_catalogue=schedule.whole_catalogue)
        self.best, self.kept, self.n_worse = -1.0, None, 0
        self.seconds = 0.0  # that an evaluation takes
        self.losses: list[float] = []

    def evaluate(self, epoch: int, outcome: Outcome) -> str:
        """Rank the validation users, note what came out, and say it."""
        reached = None
        if self.asked is not None:
            begun = self.schedule.now()
            reached = self.judge(self.asked)
            self.seconds = self.schedule.now() - begun
            if reached > self.best:
                self.best, self.kept, self.n_worse, outcome.best_epoch = reached, copy.deepcopy(self.model.state_dict()), 0, epoch
            else:
                self.n_worse += 1
        loss = float(np.mean(self.losses)) if self.losses else None
        outcome.curve.append({"epoch": epoch, "loss": loss, _METRIC: reached})
        self.losses = []
        told = "" if reached is None else f", NDCG@10 of validation users {reached:.4f}{'' if self.n_worse else ', the best'}"
        return f"epoch {epoch}: loss {loss:.4f}{told}" if loss is not None else f"before training{told.removeprefix(',')}"

    def restore(self, outcome: Outcome) -> None:
        """Put the best model back; the last one where nobody was asked."""
        if self.kept is not None:
            self.model.load_state_dict(self.kept)
        else:
            outcome.best_epoch = outcome.epochs


def _epoch(
    model: SequentialModel, steps: Iterable[list[Batch]], counted: Callable[[Batch], Any], optimizer: torch.optim.Optimizer, is_over: Callable[[], bool]
) -> float:
    """Go over the steps, or over as many as the time allows; return the mean loss."""
    model.train()
    total, n_steps = 0.0, 0
    for parts in steps:
        optimizer.zero_grad(set_to_none=True)
        summed, n_asked = 0.0, 0
        for part in parts:
            mean, n = counted(part)
            (mean * n).backward()
            summed, n_asked = summed + mean.detach().double() * n, n_asked + n
        _finish_gradients(optimizer, n_asked)
        optimizer.step()
        total, n_steps = total + summed / n_asked, n_steps + 1
        if is_over():
            break
    mean = float(total) / max(n_steps, 1)
    if not np.isfinite(mean):
        raise ConfigError(f"training went astray: the mean loss of an epoch is {mean}", fix="lower ranker.learning_rate")
    return mean


def _finish_gradients(optimizer: torch.optim.Optimizer, n_asked: torch.Tensor | int) -> None:
    """Add up what `rows_of` left sparse, and make of sums over questions means."""
    for weights in (w for group in optimizer.param_groups for w in group["params"] if w.grad is not None):
        if weights.grad.is_sparse:
            weights.grad = weights.grad.to_dense()
        weights.grad /= n_asked


@torch.inference_mode()
def validation_ndcg(model: SequentialModel, asked: Asked, max_history: int, *, whole_catalogue: bool = False) -> float:
    """Rank validation users.

    Args:
        model: Any; put into eval mode.
        asked: B users with C candidates each.
        max_history: Purchases read at most.
        whole_catalogue: Rank the target among all items that the user has not bought, not among the candidates.

    Returns:
        The mean NDCG@10, ties shared as everywhere; users without a history count as tied throughout.
    """
    model.eval()
    device = next(model.parameters()).device
    vectors = model.scored()
    width = len(vectors) - 1 if whole_catalogue else asked.candidates.shape[1]
    better, tied = np.zeros(len(asked.users)), np.full(len(asked.users), width - 1.0)
    for rows, batch in history_batches(asked, max_history, ASKED_AT_ONCE, device):
        users = model.users(batch)
        targets = torch.from_numpy(asked.targets[rows]).to(device)
        if whole_catalogue:
            scores = users @ vectors.T
            own = scores.gather(1, targets[:, None])
            scores[:, COLD] = -torch.inf
            scores[_bought(asked, rows)] = -torch.inf
        else:
            candidates = torch.from_numpy(asked.candidates[rows]).to(device)
            scores = torch.einsum("bd,bcd->bc", users, vectors[candidates])
            own = scores.gather(1, (candidates == targets[:, None]).int().argmax(1, keepdim=True))  # its first place, should it be listed twice
        better[rows] = (scores > own).sum(1).cpu().numpy()
        tied[rows] = ((scores == own).sum(1) - 1).clamp(min=0).cpu().numpy()
    return float(np.mean(expected_metric(_METRIC, better, tied)))


def _bought(asked: Asked, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return all that some users have bought, however long ago: their places among the rows, and the items."""
    starts, ends = asked.starts[:-1][rows], asked.starts[1:][rows]
    items = [asked.bought[start:end] for start, end in zip(starts, ends, strict=True)]
    return np.repeat(np.arange(len(rows)), ends - starts), np.concatenate(items)
