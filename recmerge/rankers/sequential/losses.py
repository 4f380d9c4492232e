"""How an expectation is taught what was bought next."""

import math

import torch
from torch.nn import functional

from recmerge.lm.fused_loss import linear_cross_entropy
from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.purchases import COLD

_TRIES = 3  # draws of a negative before there is none


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


def rows_of(table: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Look rows up.

    Of a table of weights the gradient is sparse: the batches of a step look up many times, and each time a dense one would be as large as the catalogue.
    `train` makes the sum of a step's gradients dense.

    Args:
        table: (I + 1, D).
        numbers: Any shape.

    Returns:
        The shape of the numbers, and D.
    """
    return functional.embedding(numbers, table, sparse=table.is_leaf and table.requires_grad)


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


def softmax_loss(expected: torch.Tensor, table: torch.Tensor, targets: torch.Tensor, n_negatives: int = 0) -> torch.Tensor:
    """Return the mean cross-entropy over the catalogue, or an estimate of it from items drawn uniformly, the same for all questions.

    A drawn item's share of the sum stands for (I + 1) / n rows of the table; one that is the answer is left out.

    Args:
        expected: (N, D).
        table: (I + 1, D); see `full_softmax`.
        targets: (N,) numbers of items.
        n_negatives: n; 0, or as many as there are items: the whole catalogue.

    Returns:
        A scalar, nats.
    """
    n_items = len(table) - 1
    if not 0 < n_negatives < n_items:
        return full_softmax(expected, table, targets)
    drawn = torch.randint(n_items + 1, (n_negatives,), device=expected.device)
    return drawn_softmax(expected, rows_of(table, targets), rows_of(table, drawn), drawn[None, :] == targets[:, None], n_items)


def drawn_softmax(expected: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor, is_answer: torch.Tensor, n_items: int) -> torch.Tensor:
    """Return the mean cross-entropy as `softmax_loss` estimates it.

    Args:
        expected: (N, D).
        right: (N, D) vectors of the answers.
        wrong: (n, D) vectors of drawn items.
        is_answer: (N, n) True where a drawn item is the answer.
        n_items: I; the items were drawn from I + 1 rows, the cold one's among them.

    Returns:
        A scalar, nats.
    """
    drawn = (expected @ wrong.T + math.log((n_items + 1) / len(wrong))).masked_fill(is_answer, -torch.inf)
    scores = (expected * right).sum(-1)
    return (torch.logaddexp(scores, drawn.logsumexp(1)) - scores).mean()


def draw_negatives(n_items: int, n: int, history: torch.Tensor) -> torch.Tensor:
    """Draw items uniformly, as far as possible none that the row holds.

    Args:
        n_items: I.
        n: Draws for each place of a row.
        history: (B, T) what the row holds, padding included.

    Returns:
        (B, T, n) numbers; the cold item, which is to be given no weight, where every draw had been bought.
    """
    drawn = torch.randint(1, n_items + 1, (*history.shape, n), device=history.device)
    held = history.sort(1).values
    for last in range(_TRIES):
        flat = drawn.flatten(1)
        places = torch.searchsorted(held, flat).clamp(max=held.shape[1] - 1)
        taken = (held.gather(1, places) == flat).view_as(drawn)
        if not taken.any():
            return drawn
        again = torch.randint(1, n_items + 1, drawn.shape, device=history.device)
        drawn = torch.where(taken, COLD if last == _TRIES - 1 else again, drawn)
    return drawn


def last_places(rows: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Find where each row holds items.

    Args:
        rows: (B, T) numbers.
        items: (K,) numbers.

    Returns:
        (B, K) the last place of the item in the row; -1: nowhere.
    """
    found = torch.full((len(rows), len(items)), -1, device=rows.device)
    for place in range(rows.shape[1]):  # (B, T, K) at once would not fit where histories are long
        found = found.masked_fill(rows[:, place, None] == items, place)
    return found


def binary_cross_entropy(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """Return -log sigmoid(right) - log(1 - sigmoid(wrong)), each a mean.

    Args:
        right: (N,) scores of what was bought.
        wrong: (M,) scores of negatives; of none, the mean is 0.

    Returns:
        A scalar.
    """
    return functional.softplus(-right).mean() + functional.softplus(wrong).sum() / max(len(wrong), 1)


def pair_loss(expected: torch.Tensor, table: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the binary cross-entropy of what was bought and, for each question, of one item that the row does not hold, where there is one.

    Args:
        expected: (B, T, D).
        table: (I + 1, D).
        batch: Of B rows.

    Returns:
        A scalar.
    """
    asked = batch.targets > COLD
    drawn = draw_negatives(len(table) - 1, 1, batch.whole())[:, 1:, 0]
    scores = [(expected[places] * rows_of(table, numbers[places])).sum(-1) for numbers, places in ((batch.targets, asked), (drawn, asked & (drawn > COLD)))]
    return binary_cross_entropy(*scores)


def info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float, same: torch.Tensor | None = None, wrong: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean in-batch contrastive loss: each row of `left` is to find its own among the rows of `right`.

    Args:
        left: (N, D).
        right: (N, D).
        temperature: Cosines are divided by it.
        same: (N,) numbers; another row of the same number is no negative. None: every other row is one.
        wrong: (N, D) one more negative for each row of `left` alone.

    Returns:
        A scalar.
    """
    left = functional.normalize(left, dim=-1)
    cosines = left @ functional.normalize(right, dim=-1).T / temperature
    if same is not None:
        twins = (same[:, None] == same[None, :]) & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        cosines = cosines.masked_fill(twins, -torch.inf)
    if wrong is not None:
        cosines = torch.cat([cosines, (left * functional.normalize(wrong, dim=-1)).sum(-1, keepdim=True) / temperature], 1)
    return functional.cross_entropy(cosines, torch.arange(len(left), device=left.device))
