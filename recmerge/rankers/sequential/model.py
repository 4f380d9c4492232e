"""The seam: any item representation under any sequence encoder, and the losses by which what comes next is learnt."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import at_questions, pair_loss, rows_of, softmax_loss
from recmerge.rankers.sequential.purchases import COLD


class ItemRepresentation(nn.Module, ABC):
    """What a model knows of the I items of a catalogue."""

    @abstractmethod
    def table(self) -> torch.Tensor:
        """Return (I + 1, D) vectors that expectations are compared with; row 0 is the cold item's."""

    def read(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) vectors of purchases for the encoder.

        Args:
            items: (B, T) numbers.

        Returns:
            The rows of `table`, unless a model reads items otherwise than it scores them.
        """
        return rows_of(self.table(), items)


class SequenceEncoder(nn.Module, ABC):
    """Reads purchases in their order."""

    @abstractmethod
    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Read.

        Args:
            purchases: (B, T, D) vectors, the newest last.
            known: (B, T) False where there is padding, on the left.

        Returns:
            (B, T, D); what stands in the last place is the reader's expectation of the next purchase.
        """


class IdItems(ItemRepresentation):
    """An embedding for every item and nothing else known of it.

    Args:
        n_items: I.
        width: D.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_items + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def table(self) -> torch.Tensor:
        """Return (I + 1, D) embeddings."""
        return self.embedding.weight


class SequentialModel(nn.Module, ABC):
    """An item representation, a sequence encoder and a loss; a score is the product of an expectation with an item's vector.

    Args:
        items: The representation.
        encoder: The encoder.
    """

    every_place: bool = True  # a question at every place of a sequence; False: at the last, and a row for every purchase
    fewest: int | None = 1  # rows of a batch at least, where a loss compares rows; None: a step is one batch, where it reads much once for all

    def __init__(self, items: ItemRepresentation, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.items = items
        self.encoder = encoder

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D): what is expected after each purchase; a reader of both sides answers for the last place only."""
        return self.encoder(self.items.read(batch.items), batch.items > COLD)  # type: ignore[no-any-return]

    def users(self, batch: Batch) -> torch.Tensor:
        """Return (B, D): what is expected next of each user."""
        return self.expectations(batch)[:, -1]

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D) item vectors whose products with `users` are the scores."""
        return self.items.table()

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """Return a scalar to go down; a mean over questions, so that it does not grow with the batch."""

    def counted_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, and of how many questions it is the mean, so that a step's batches weigh as if they were one."""
        return self.loss(batch), (batch.targets > COLD).sum()


class NextItemModel(SequentialModel):
    """A model that learns each next purchase by a softmax, or by pairs of it and one negative.

    Args:
        items: The representation.
        encoder: The encoder.
        by_pairs: Learn by pairs.
        negatives: Of the softmax; see `softmax_loss`.
    """

    def __init__(self, items: ItemRepresentation, encoder: SequenceEncoder, *, by_pairs: bool, negatives: int) -> None:
        super().__init__(items, encoder)
        self.by_pairs = by_pairs
        self.negatives = negatives

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss over the questions."""
        if self.by_pairs:
            return pair_loss(self.expectations(batch), self.scored(), batch)
        expected, targets = at_questions(self.expectations(batch), batch.targets)
        return softmax_loss(expected, self.scored(), targets, self.negatives)
