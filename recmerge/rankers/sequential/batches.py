"""Batches of purchases in their order, padded on the left; what a step learns from is mixed, and read in parts of like length."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recmerge.rankers.per_domain import Numbers
from recmerge.rankers.sequential.purchases import COLD, Asked, Histories

ASKED_AT_ONCE = 512  # users, where nothing is learnt
_PART = 256  # purchases that a CPU reads in the time of a batch's own overhead


@dataclass(frozen=True)
class Batch:
    """B buyers' purchases, the newest in the last place.

    Args:
        users: (B,) numbers; 0: never trained on.
        items: (B, T) numbers of items; 0 is padding, on the left.
        targets: (B, T) what was bought next after each; 0: not asked there.
        times: (B, T + 1) seconds of `items` and of the last target; -1: unknown.
    """

    users: torch.Tensor
    items: torch.Tensor
    targets: torch.Tensor
    times: torch.Tensor

    def whole(self) -> torch.Tensor:
        """Return (B, T + 1): the purchases with the last target behind them."""
        return torch.cat([self.items, self.targets[:, -1:]], 1)


class Rows:
    """Stretches of purchases to learn from; each is one row of a batch.

    Args:
        purchases: A domain's, or several'.
        max_history: Purchases read at most.
        every_place: True: one row per buyer, with a question at every place; more purchases than are read are several rows, cut from the newest,
            each beginning with what the one before ends with. False: one row for every purchase but a buyer's first, with the purchases before it and one
            question, the last. Either way every purchase but a buyer's first is asked for once.
        device: Where batches are made.
    """

    def __init__(self, purchases: Histories, max_history: int, *, every_place: bool, device: torch.device) -> None:
        self.every_place = every_place
        first, last = purchases.starts[:-1], purchases.starts[1:]
        buyers = np.arange(1, len(first) + 1)
        step = max_history if every_place else 1  # from the end of one row of a buyer to that of the next
        n_rows = np.maximum(-(-(last - first - 1) // step), 0)
        buyers, first, last = (np.repeat(each, n_rows) for each in (buyers, first, last))
        newer = np.repeat(n_rows.cumsum(), n_rows) - np.arange(1, len(buyers) + 1)  # rows of the same buyer behind a row
        ends = last - step * newer
        self.users, self.starts, self.ends = buyers, np.maximum(first, ends - max_history - 1), ends
        self.bought, self.times = (torch.from_numpy(flat).to(device) for flat in (purchases.bought, purchases.times))

    def __len__(self) -> int:
        return len(self.users)

    def steps(self, size: int, draw: np.random.Generator, fewest: int | None) -> Iterator[list[Batch]]:
        """Yield every row once, in a new order.

        A step's rows are drawn from all: steps of rows of like length teach now what follows one purchase and now what follows many, and learn worse.
        Only within a step are like lengths put together, on a CPU, so that little is read that is padding.

        Args:
            size: Rows of a step.
            draw: Draws the order.
            fewest: Rows of a batch at least, where there are as many; None: a step is one batch.

        Yields:
            The batches of each step.
        """
        order = draw.permutation(len(self))
        lengths = self.ends - self.starts - 1  # of what is read
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            if fewest is None or self.bought.device.type != "cpu":
                yield [self.batch(rows)]
            else:
                yield [self.batch(part) for part in np.split(rows, like_lengths(lengths[rows], fewest))]

    def batch(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Return some rows as a batch."""
        users, starts, ends = (torch.from_numpy(a[rows]).to(self.bought.device) for a in (self.users, self.starts, self.ends))
        width = int((self.ends[rows] - self.starts[rows]).max())
        whole, times = _padded(self.bought, starts, ends, width), _padded(self.times, starts, ends, width, -1)
        items = whole[:, :-1]
        targets = torch.where(items > COLD, whole[:, 1:], COLD)
        if not self.every_place:
            targets[:, :-1] = COLD
        return Batch(users, items, targets, times)


def like_lengths(lengths: npt.NDArray[np.int64], fewest: int = 1) -> list[int]:
    """Cut rows in order of length into batches that together are read soonest, each padded to its longest row.

    Args:
        lengths: (N,) ascending.
        fewest: Rows of a batch at least, where there are as many.

    Returns:
        Where all batches but the first begin.
    """
    widths, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    cost, cut = np.zeros(len(ends)), np.zeros(len(ends), dtype=np.int64)  # of the rows up to each end, and where the last batch of them begins
    for j in range(1, len(ends)):
        sizes = ends[j] - ends[:j]
        costs = np.where((sizes >= fewest) | (sizes == len(lengths)), cost[:j] + sizes * widths[j - 1] + _PART, np.inf)
        cut[j] = costs.argmin()
        cost[j] = costs[cut[j]]
    begins = []
    at = int(cut[-1])
    while at:
        begins.append(int(ends[at]))
        at = int(cut[at])
    return begins[::-1]


def read_alike(lengths: torch.Tensor, read: Callable[[torch.Tensor, int], torch.Tensor]) -> torch.Tensor:
    """Read rows in batches of like length that together are read soonest; on a GPU one batch is.

    Args:
        lengths: (B,) of what there is to read of each row.
        read: Reads some rows, by their (b,) numbers, to the length of the longest, which is at least 1; returns (b, ...).

    Returns:
        (B, ...) what was read, in the order of the rows.
    """
    order = lengths.argsort(stable=True)
    cuts = like_lengths(lengths[order].numpy()) if lengths.device.type == "cpu" else []
    parts = [read(rows, max(int(lengths[rows].max()), 1)) for rows in order.tensor_split(cuts)]
    return torch.cat(parts)[order.argsort()]


def history_batches(asked: Asked, max_history: int, size: int, device: torch.device) -> Iterator[tuple[npt.NDArray[np.int64], Batch]]:
    """Yield the users who have a known history, those with histories of like length together.

    Args:
        asked: B users.
        max_history: Purchases read at most.
        size: Users of a batch.
        device: Where batches are made.

    Yields:
        Places among the B users, and their histories as a batch without targets.
    """
    starts, ends, order = newest_histories(asked, max_history)
    bought = torch.from_numpy(asked.bought).to(device)
    for at in range(0, len(order), size):
        rows = order[at : at + size]
        width = int((ends - starts)[rows].max())
        items = _padded(bought, torch.from_numpy(starts[rows]).to(device), torch.from_numpy(ends[rows]).to(device), width)
        users = torch.from_numpy(asked.users[rows]).to(device)
        yield rows, Batch(users, items, torch.zeros_like(items), torch.full((len(rows), width + 1), -1, device=device))


def newest_histories(asked: Asked, max_history: int) -> tuple[Numbers, Numbers, Numbers]:
    """Find what is read of histories.

    Args:
        asked: B users.
        max_history: Purchases read at most.

    Returns:
        (B,) where each begins and (B,) ends in `asked.bought`, and the places of the users who have one, the shortest first.
    """
    first, ends = asked.starts[:-1], asked.starts[1:]
    starts = np.maximum(first, ends - max_history)
    order = np.argsort(ends - starts, kind="stable")
    return starts, ends, order[(ends - starts)[order] > 0]


def _padded(flat: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor, width: int, padding: int = COLD) -> torch.Tensor:
    """Return (B, width): the entries `starts` to `ends` of a flat array, the last in the last place."""
    places = ends[:, None] - width + torch.arange(width, device=flat.device)
    return torch.where(places >= starts[:, None], flat[places.clamp(min=0)], padding)
