"""How an expectation is taught what was bought next."""

import torch
from torch.nn import functional

from recmerge.lm.fused_loss import linear_cross_entropy
from recmerge.rankers.sequential.purchases import COLD

_TRIES = 3  # draws of a negative before one that was bought is given no weight


def at_questions(expected: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the places where something is asked.

    Args:
        expected: (B, T, D).
        targets: (B, T); 0: not asked.

    Returns:
        (N, D) expectations and (N,) numbers of items.
    """
    asked = targets > COLD
    return expected[asked], targets[asked]


def full_softmax(expected: torch.Tensor, table: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the whole catalogue, nats.

    Args:
        expected: (N, D).
        table: (I + 1, D); the cold item in row 0 is in the softmax and never the answer, so unknown items learn to score low.
        targets: (N,) numbers of items.

    Returns:
        A scalar.
    """
    if expected.device.type == "cpu":
        return linear_cross_entropy(expected, table, targets)
    return functional.cross_entropy(expected @ table.T, targets)


def draw_negatives(n_items: int, n: int, history: torch.Tensor) -> torch.Tensor:
    """Draw items uniformly, as far as possible none that the row holds.

    Args:
        n_items: I.
        n: Draws for each place of a row.
        history: (B, T) what the row holds, padding included.

    Returns:
        (B, T, n) numbers; the cold item where every draw had been bought.
    """
    drawn = torch.randint(1, n_items + 1, (*history.shape, n), device=history.device)
    for last in range(_TRIES):
        taken = (drawn[..., None] == history[:, None, None, :]).any(-1)
        if not taken.any():
            return drawn
        again = torch.randint(1, n_items + 1, drawn.shape, device=history.device)
        drawn = torch.where(taken, COLD if last == _TRIES - 1 else again, drawn)
    return drawn


def binary_cross_entropy(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """Return -log sigmoid(right) - log(1 - sigmoid(wrong)), each a mean.

    Args:
        right: Scores of what was bought.
        wrong: Scores of negatives.

    Returns:
        A scalar.
    """
    return functional.softplus(-right).mean() + functional.softplus(wrong).mean()


def info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float, same: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean in-batch contrastive loss: each row of `left` is to find its own among the rows of `right`.

    Args:
        left: (N, D).
        right: (N, D).
        temperature: Cosines are divided by it.
        same: (N,) numbers; another row of the same number is no negative. None: every other row is one.

    Returns:
        A scalar.
    """
    cosines = functional.normalize(left, dim=-1) @ functional.normalize(right, dim=-1).T / temperature
    if same is not None:
        twins = (same[:, None] == same[None, :]) & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        cosines = cosines.masked_fill(twins, -torch.inf)
    return functional.cross_entropy(cosines, torch.arange(len(left), device=left.device))
