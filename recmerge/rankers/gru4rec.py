"""The sequential ranker by a recurrent network: GRU4Rec."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import at_questions, rows_of, softmax_loss
from recmerge.rankers.sequential.model import IdItems, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import RowsSettings


class Gru4RecSettings(RowsSettings):
    """Size of the network, and what it learns from."""

    dropout: float = Field(0.3, ge=0, lt=1, description="of the vectors read")
    hidden: int = Field(128, ge=1, description="width of the recurrent state")
    layers: int = Field(1, ge=1)
    loss: Literal["softmax", "bpr_max"] = Field("softmax", description="cross-entropy, or BPR-max; over the catalogue or `negatives` drawn items")
    score_penalty: float = Field(1.0, ge=0, description="weight of the squared scores of what was not bought, with bpr_max")


class GruEncoder(SequenceEncoder):
    """A gated recurrent network, and a layer from its state back to the width of items.

    Args:
        width: D.
        hidden: Of the state.
        layers: How many.
        dropout: Of what is read.
    """

    def __init__(self, width: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.recurrent = nn.GRU(width, hidden, layers, bias=False, batch_first=True)  # no bias: on zeros its state stays 0
        self.outward = nn.Linear(hidden, width)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D); the state starts at 0 with the first known purchase."""
        states, _ = self.recurrent(self.dropout(purchases * known[..., None]))
        return self.outward(states)  # type: ignore[no-any-return]


class Gru4RecModel(SequentialModel):
    """A recurrent network over item embeddings.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    def __init__(self, n_items: int, settings: Gru4RecSettings) -> None:
        s = settings
        super().__init__(IdItems(n_items, s.width), GruEncoder(s.width, s.hidden, s.layers, s.dropout))
        self.settings = settings
        self.every_place = s.every_place

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean loss over the places of all sequences."""
        expected, targets = at_questions(self.expectations(batch), batch.targets)
        vectors = self.scored()
        if self.settings.loss == "softmax":
            return softmax_loss(expected, vectors, targets, self.settings.negatives)
        others = torch.arange(len(vectors), device=targets.device)
        if self.settings.negatives:
            others = torch.randint(len(vectors), (self.settings.negatives,), device=targets.device)
        right, wrong = (expected * rows_of(vectors, targets)).sum(-1), expected @ rows_of(vectors, others).T
        return bpr_max(right, wrong, others == targets[:, None], self.settings.score_penalty)


class Gru4RecRanker(SequentialRanker):
    """Scores an item by the product of its embedding with what a recurrent network makes of the purchases.

    Source: B. Hidasi, A. Karatzoglou, L. Baltrunas and D. Tikk, Session-based recommendations with recurrent neural networks, ICLR
    2016; B. Hidasi and A. Karatzoglou, Recurrent neural networks with top-k gains for session-based recommendations, CIKM 2018.
    Departures: by default cross-entropy over the whole catalogue after every purchase, and the sizes, of RecBole, after Y. K. Tan, X. Xu
    and Y. Liu, Improved recurrent neural networks for session-based recommendations, DLRS 2016. The papers step through sessions side by
    side, the other sessions' next items being the negatives, with the losses TOP1 and BPR (2016) or, with further drawn items, TOP1-max,
    BPR-max and cross-entropy (2018). `loss: bpr_max` gives the loss of 2018 against the whole catalogue or, with `negatives`, items drawn
    uniformly for each step, of linear scores (the authors' code bends negative ones). Whole histories are read, as far as `max_history`,
    longer ones in several rows. A layer leads from the state back to the width of the items, whose embedding is read and scored. No bias in
    the recurrence; Adam, not Adagrad.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "gru4rec"
    settings_class = Gru4RecSettings
    settings: Gru4RecSettings

    def build(self, sizes: Mapping[str, int]) -> Gru4RecModel:
        """Make an untrained model."""
        return Gru4RecModel(sizes["n_items"], self.settings)


def bpr_max(right: torch.Tensor, wrong: torch.Tensor, is_answer: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return the mean of -log sum_j s_j sigmoid(right - wrong_j) + penalty * sum_j s_j wrong_j^2, with s the softmax of the wrong scores.

    Args:
        right: (N,) scores of what was bought.
        wrong: (N, J) scores of other items.
        is_answer: (N, J) True where the other item is what was bought, which then does not count; where nothing else is left, it is all there is.
        penalty: Of the squares.

    Returns:
        A scalar.
    """
    counts = ~is_answer | is_answer.all(-1, keepdim=True)
    log_weights = wrong.masked_fill(~counts, -torch.inf).log_softmax(-1)
    above = torch.logsumexp(log_weights + nn.functional.logsigmoid(right[:, None] - wrong), -1)
    return (penalty * (log_weights.exp() * wrong.square()).sum(-1) - above).mean()
