"""Purchases in numbers for tests of sequential models: a row of a batch is written as its items, the last target last."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from recmerge.data.dataset import Domain
from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.purchases import Purchases

_NO_DOMAIN = Domain("sports", "clean", *[None] * 5)  # type: ignore[arg-type]


def purchases(*histories: Sequence[int], n_items: int = 9) -> Purchases:
    """One domain's purchases; buyer 1 has the first history."""
    flat = np.asarray([item for history in histories for item in history], dtype=np.int64)
    starts = np.cumsum([0, *map(len, histories)])
    items, users = ({f"{letter}{n}": n for n in range(1, count + 1)} for letter, count in (("i", n_items), ("u", len(histories))))
    return Purchases(domain=_NO_DOMAIN, items=items, users=users, starts=starts, bought=flat, times=100 * np.arange(len(flat)))


def batch(*rows: Sequence[int], width: int = 0, every_place: bool = True, users: Sequence[int] | None = None) -> Batch:
    """A batch that asks at every place, or at the last, of at least so many places."""
    width = max(width, *(len(row) - 1 for row in rows))
    whole = torch.tensor([[0] * (width + 1 - len(row)) + list(row) for row in rows])
    targets = torch.where(whole[:, :-1] > 0, whole[:, 1:], 0)
    if not every_place:
        targets[:, :-1] = 0
    numbers = torch.tensor(users if users is not None else [0] * len(rows))
    return Batch(numbers, whole[:, :-1], targets, torch.full_like(whole, -1))


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, its weights drawn so large that every part of it shows in what comes out."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw) * 0.5)
    return model.eval()


def value(scalar: torch.Tensor) -> float:
    """The number in a tensor that may be part of a graph."""
    return float(scalar.detach())
