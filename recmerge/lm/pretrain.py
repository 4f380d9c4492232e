"""Train a small causal language model on titles laid out as `open` prompts are."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recmerge.lm.cores import Map, one_core_each
from recmerge.lm.fused_loss import linear_cross_entropy
from recmerge.lm.muon import Muon
from recmerge.lm.shelves import Source, lay_out
from recmerge.runs.reporter import Reporter

_FINAL_RATE = 0.03  # of the peak learning rate, at the last step


@dataclass(frozen=True)
class Reading:
    """What the model reads.

    Args:
        titles: Token ids of every title, without end token.
        sources: Where lists of titles are drawn from, with the share of each.
        start_ids: What a sequence begins with.
        end_id: The token behind every title.
        max_length: Tokens of a sequence at most.
    """

    titles: Sequence[tuple[int, ...]]
    sources: Sequence[tuple[Source, float]]
    start_ids: tuple[int, ...]
    end_id: int
    max_length: int

    def draw(self, rng: random.Random) -> list[int]:
        """Return one sequence of token ids, two at least."""
        while True:
            source = rng.choices([s for s, _ in self.sources], [w for _, w in self.sources])[0]
            ids = lay_out(source.draw(rng), self.titles, self.start_ids, self.end_id, self.max_length)
            if len(ids) > len(self.start_ids) + 1:
                return ids


@dataclass(frozen=True)
class PretrainResult:
    """What pretraining took.

    Args:
        tokens_seen: Tokens trained on.
        parameters: Of the model.
        curve: (step, training loss in nats per token) of every step.
    """

    tokens_seen: int
    parameters: int
    curve: list[tuple[int, float]]


def pretrain(model: Any, reading: Reading, settings: Mapping[str, Any], reporter: Reporter) -> PretrainResult:
    """Train a model in place.

    Args:
        model: Random float32 weights, tied embeddings.
        reading: What it reads.
        settings: steps, batch_size, micro_batch_size, learning_rate (AdamW: embeddings and norms), muon_rate (all other matrices),
            warmup_ratio, weight_decay, seed.
        reporter: Where progress goes.

    Returns:
        What it took.
    """
    rng = random.Random(settings["seed"])  # noqa: S311  (no secret)
    optimizers = _optimizers(model, settings)
    steps, curve, seen = settings["steps"], [], 0
    model.train()
    with one_core_each(torch.device("cpu")) as side_by_side, reporter.bar("pretraining", steps) as bar:
        gradients = _Gradients(model, settings["micro_batch_size"], side_by_side)
        for step in range(steps):
            rate = _schedule(step, steps, settings["warmup_ratio"])
            rows = [reading.draw(rng) for _ in range(settings["batch_size"])]
            loss = gradients.find(rows)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, peak in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = peak * rate
                optimizer.step()
                optimizer.zero_grad()
            seen += sum(map(len, rows))
            curve.append((step + 1, loss))
            bar.advance(1, f"loss {curve[-1][1]:.3f}")
    model.eval()
    return PretrainResult(seen, sum(p.numel() for p in model.parameters()), curve)


class _Gradients:
    """Finds a batch's gradients in parts, each on one core; cut and summed the same way on any number of cores."""

    def __init__(self, model: Any, part_size: int, side_by_side: Map) -> None:
        self.model, self.part_size, self.side_by_side = model, part_size, side_by_side
        self.parameters = list(model.parameters())

    def find(self, rows: Sequence[Sequence[int]]) -> float:
        """Set every parameter's gradient; return the mean loss in nats per token."""
        ordered = sorted(rows, key=len)
        parts = [ordered[i : i + self.part_size] for i in range(0, len(ordered), self.part_size)]
        counts = [sum(len(row) - 1 for row in part) for part in parts]
        total = 0.0
        for count, (loss, gradients) in zip(counts, self.side_by_side(self._part, parts), strict=True):
            share = count / sum(counts)
            total += loss * share
            for p, gradient in zip(self.parameters, gradients, strict=True):
                p.grad = gradient.mul_(share) if p.grad is None else p.grad.add_(gradient, alpha=share)
        return total

    def _part(self, rows: Sequence[Sequence[int]]) -> tuple[float, tuple[torch.Tensor, ...]]:
        loss = next_token_loss(self.model, rows)
        return float(loss.detach()), torch.autograd.grad(loss, self.parameters)


def _optimizers(model: Any, settings: Mapping[str, Any]) -> list[tuple[torch.optim.Optimizer, float]]:
    """Give the matrices between embedding and output to Muon, everything else to AdamW; with their peak rates."""
    table = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not table]
    others = [p for p in model.parameters() if p.ndim != 2 or p is table]
    muon = Muon(matrices, settings["muon_rate"], weight_decay=settings["weight_decay"])
    adam = torch.optim.AdamW(others, settings["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, settings["muon_rate"]), (adam, settings["learning_rate"])]


def _schedule(step: int, steps: int, warmup_ratio: float) -> float:
    warmup = max(1, math.ceil(steps * warmup_ratio))
    if step < warmup:
        return (step + 1) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    return _FINAL_RATE + (1 - _FINAL_RATE) * cosine


def next_token_loss(model: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean loss of predicting every token but the first of each row.

    Args:
        model: A causal language model.
        rows: Token ids, two or more each.

    Returns:
        Scalar, nats per token.
    """
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    known = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        known[number, : len(row)] = True
    # padding stands on the right, so no real token sees it and no mask is needed
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    predicts = known[:, 1:]
    return linear_cross_entropy(hidden[:, :-1][predicts], model.get_output_embeddings().weight, ids[:, 1:][predicts])
