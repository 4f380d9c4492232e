"""The sequential ranker that fills gaps from both sides: BERT4Rec."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import softmax_loss
from recmerge.rankers.sequential.model import IdItems, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import SoftmaxSettings, TransformerSettings
from recmerge.rankers.sequential.transformer import TransformerEncoder


class Bert4RecSettings(SoftmaxSettings, TransformerSettings):
    """Size of the transformer, and what is hidden from it."""

    mask_ratio: float = Field(0.6, gt=0, le=1, description="chance of a sequence's places to be hidden; at least one is")
    last_ratio: float = Field(0.1, ge=0, le=1, description="share of the sequences of which the last place alone is hidden")


class BiasedItems(IdItems):
    """Embeddings with a bias for each item in a last column, which is scored but not read.

    Args:
        n_items: I.
        width: D of what is read; the table has D + 1.
    """

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__(n_items, width + 1)
        with torch.no_grad():
            self.embedding.weight[:, -1] = 0.0

    def read(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) embeddings."""
        return super().read(items)[..., :-1]


class GapEncoder(SequenceEncoder):
    """A transformer that reads both sides of gaps; it expects the next purchase by a gap behind the newest.

    Args:
        settings: The ranker's.
    """

    def __init__(self, settings: Bert4RecSettings) -> None:
        super().__init__()
        s = settings
        self.gap = nn.Parameter(torch.empty(s.width))  # no row of the items' table: it cannot be scored
        nn.init.normal_(self.gap, std=0.02)
        self.transformer = TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history + 1, causal=False)
        self.head = nn.Sequential(nn.Linear(s.width, s.width), nn.GELU(), nn.LayerNorm(s.width))
        nn.init.normal_(self.head[0].weight, std=0.02)
        nn.init.zeros_(self.head[0].bias)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D), of which the last place alone is an answer: what fits a gap behind the purchases."""
        longer = nn.functional.pad(purchases, (0, 0, 0, 1))
        behind = nn.functional.pad(torch.zeros_like(known), (0, 1), value=True)
        return self.fill(longer, nn.functional.pad(known, (0, 1), value=True), behind)[:, 1:]

    def fill(self, purchases: torch.Tensor, known: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D): what fits each place.

        Args:
            purchases: (B, T, D) vectors.
            known: (B, T) False where there is padding.
            hidden: (B, T) True where a gap is read instead of the purchase.

        Returns:
            The answers.
        """
        return self.head(self.transformer(torch.where(hidden[..., None], self.gap, purchases), known))  # type: ignore[no-any-return]


class Bert4RecModel(SequentialModel):
    """A transformer reading both sides over item embeddings, with a bias for each item.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    encoder: GapEncoder

    def __init__(self, n_items: int, settings: Bert4RecSettings) -> None:
        super().__init__(BiasedItems(n_items, settings.width), GapEncoder(settings))
        self.settings = settings

    def users(self, batch: Batch) -> torch.Tensor:
        """Return (B, D + 1): what fits a gap behind the purchases, and 1 for the items' bias."""
        return _and_one(super().users(batch))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over what was hidden."""
        return self.counted_loss(batch)[0]

    def counted_loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, and how many purchases were hidden."""
        whole = batch.whole()
        hidden = self.hidden(whole)
        filled = self.encoder.fill(self.items.read(whole), whole > COLD, hidden)
        return softmax_loss(_and_one(filled[hidden]), self.scored(), whole[hidden], self.settings.negatives), hidden.sum()

    def hidden(self, whole: torch.Tensor) -> torch.Tensor:
        """Draw what is hidden.

        Args:
            whole: (B, T) numbers of items, padded on the left.

        Returns:
            (B, T): True at the last place alone, or at each known place by chance but at one at least.
        """
        chance = torch.rand(whole.shape, device=whole.device).masked_fill(whole == COLD, torch.inf)
        some = (chance < self.settings.mask_ratio) | (chance == chance.amin(1, keepdim=True))
        last = torch.zeros_like(some)
        last[:, -1] = True
        last_alone = torch.rand(len(whole), 1, device=whole.device) < self.settings.last_ratio
        return torch.where(last_alone, last, some)


class Bert4RecRanker(SequentialRanker):
    """Scores an item by how well it fits a gap behind the purchases, for a transformer that learnt to fill gaps.

    Source: F. Sun, J. Liu, J. Wu, C. Pei, X. Lin, W. Ou and P. Jiang, BERT4Rec: sequential recommendation with bidirectional
    encoder representations from transformer, CIKM 2019.
    Departures: sizes are RecBole's. The ratio of hidden places, and about how often the last alone is hidden, are what the authors' code
    has for Amazon Beauty; gaps are drawn anew each time a sequence is read, each place by chance, not a fixed number of them ten times
    beforehand, and a batch has one mean over all of them. As in the authors' code and RecBole, but not in the paper, the sum of item and
    position is normalised before the blocks and the layer behind them after it. Positions count from the newest purchase, theirs from the
    oldest. Adam at a constant rate.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, gaps and the order of batches.
    """

    name: ClassVar[str] = "bert4rec"
    settings_class = Bert4RecSettings
    settings: Bert4RecSettings

    def build(self, sizes: Mapping[str, int]) -> Bert4RecModel:
        """Make an untrained model."""
        return Bert4RecModel(sizes["n_items"], self.settings)


def _and_one(vectors: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(vectors, (0, 1), value=1.0)
