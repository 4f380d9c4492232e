"""The ranker by cosines with a user's vector and the mean of the purchases: SimpleX."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import last_places, rows_of
from recmerge.rankers.sequential.model import IdItems, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import SequentialSettings
from recmerge.rankers.sequential.transformer import visible_places

Pool = Literal["mean", "self_attention", "user_attention"]


class SimpleXSettings(SequentialSettings):
    """How a user's vector is made, and what it learns from."""

    dropout: float = Field(0.1, ge=0, lt=1, description="of users' vectors")
    pool: Pool = "mean"
    user_share: float = Field(0.5, ge=0, le=1, description="weight of the user's own vector; the purchases have the rest")
    negatives: int = Field(1000, ge=1, description="items drawn for each batch; of a question those count that the buyer's row does not hold")
    margin: float = Field(0.4, ge=-1, le=1, description="cosine above which a drawn item costs")
    negative_weight: float = Field(10.0, ge=0, description="of the mean cost of the drawn items")


class Pooling(SequenceEncoder):
    """A weighted mean of the purchases up to each place, and a linear map.

    Args:
        width: D.
        pool: Equal weights, or softmax weights by a learned query, or by the user's vector.
    """

    def __init__(self, width: int, pool: Pool) -> None:
        super().__init__()
        self.outward = nn.Linear(width, width, bias=False)
        self.keys = None if pool == "mean" else nn.Linear(width, width)
        self.query = None
        if pool == "self_attention":
            self.query = nn.Parameter(torch.empty(width))
            nn.init.normal_(self.query, std=0.02)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor, users: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, T, D).

        Args:
            purchases: (B, T, D) vectors, the newest last.
            known: (B, T) False where there is padding, on the left.
            users: (B, D) vectors, which alone `user_attention` looks at; None, or 0: nothing is known, and weights are equal.

        Returns:
            The mapped means.
        """
        logits = purchases.new_zeros(known.shape)
        if self.keys is not None:
            query = self.query if self.query is not None else users
            if query is not None:
                logits = (torch.tanh(self.keys(purchases)) * query.view(-1, 1, purchases.shape[-1])).sum(-1)
        visible = visible_places(known, causal=True)[:, 0]
        weights = logits[:, None].masked_fill(~visible, -torch.inf).softmax(-1)
        return self.outward(weights @ purchases)  # type: ignore[no-any-return]


class SimpleXModel(SequentialModel):
    """Users' own vectors and means of item embeddings, compared with embeddings by cosines.

    Args:
        n_items: I.
        n_users: U.
        settings: The ranker's.
    """

    encoder: Pooling

    def __init__(self, n_items: int, n_users: int, settings: SimpleXSettings) -> None:
        super().__init__(IdItems(n_items, settings.width), Pooling(settings.width, settings.pool))
        self.own = nn.Embedding(n_users + 1, settings.width)
        nn.init.normal_(self.own.weight, std=0.02)
        self.dropout = nn.Dropout(settings.dropout)
        self.settings = settings

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D) of length 1; of users never trained on, those of the purchases alone."""
        share = self.settings.user_share
        own = self.own(batch.users) * (batch.users > 0)[:, None]
        pooled = self.encoder(self.items.read(batch.items), batch.items > COLD, own)
        return nn.functional.normalize(self.dropout(share * own[:, None] + (1 - share) * pooled), dim=-1)

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D) embeddings of length 1; the cold item's is 0."""
        vectors = nn.functional.normalize(self.items.table(), dim=-1)
        return torch.cat([torch.zeros_like(vectors[:1]), vectors[1:]])

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss over the places of all sequences."""
        rows, places = (batch.targets > COLD).nonzero(as_tuple=True)
        expected, table, targets = self.expectations(batch)[rows, places], self.items.table(), batch.targets[rows, places]
        drawn = torch.randint(1, len(table), (self.settings.negatives,), device=targets.device)
        right, wrong = (nn.functional.normalize(rows_of(table, numbers), dim=-1) for numbers in (targets, drawn))
        counts = (last_places(batch.whole(), drawn) < 0)[rows]
        return cosine_contrastive((expected * right).sum(-1), expected @ wrong.T, counts, self.settings.margin, self.settings.negative_weight)


class SimpleXRanker(SequentialRanker):
    """Scores an item by the cosine of its embedding with a mixture of the user's own vector and the pooled purchases.

    Source: K. Mao, J. Zhu, J. Wang, Q. Dai, Z. Dong, X. Xiao and X. He, SimpleX: a simple and strong baseline for collaborative
    filtering, CIKM 2021.
    Departures: the purchases pooled are those before the one that is asked for, in training as in scoring; the paper pools all of a user's,
    the one asked for among them. Negatives are drawn for a batch, not for each question. Of a user never trained on, the purchases alone
    speak. Dropout of the mixed vector; weight decay is AdamW's, of all weights, not a penalty on embeddings. Adam at 1e-3, not 1e-4;
    margin, weight and number of negatives are tuned for each data set in the paper, these defaults are ours.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "simplex"
    knows_users: ClassVar[bool] = True
    settings_class = SimpleXSettings
    settings: SimpleXSettings

    def build(self, sizes: Mapping[str, int]) -> SimpleXModel:
        """Make an untrained model."""
        return SimpleXModel(sizes["n_items"], sizes["n_users"], self.settings)


def cosine_contrastive(right: torch.Tensor, wrong: torch.Tensor, counts: torch.Tensor, margin: float, weight: float) -> torch.Tensor:
    """Return the mean of 1 - right + weight * mean_j max(0, wrong_j - margin).

    Args:
        right: (N,) cosines of what was bought.
        wrong: (N, J) cosines of drawn items.
        counts: (N, J) False where a drawn item is no negative; where none is, there is no cost.
        margin: Below it a drawn item costs nothing.
        weight: Of the drawn items.

    Returns:
        A scalar.
    """
    costs = (torch.relu(wrong - margin) * counts).sum(-1) / counts.sum(-1).clamp(min=1)
    return (1 - right + weight * costs).mean()
