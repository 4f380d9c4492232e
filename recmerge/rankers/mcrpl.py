"""The sequential ranker with prompts shared by domains: MCRPL."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import at_questions, drawn_softmax, full_softmax, rows_of
from recmerge.rankers.sequential.model import ItemRepresentation, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases
from recmerge.rankers.sequential.settings import SoftmaxSettings
from recmerge.rankers.sequential.together import TogetherRanker, TogetherSettings
from recmerge.rankers.sequential.transformer import Block, visible_places


class McrplSettings(SoftmaxSettings, TogetherSettings):
    """Prompts, and the transformer behind them."""

    width: int = Field(100, ge=1, description="of an item's vector")
    max_history: int = Field(15, ge=1, description="purchases read at most, the newest")
    blocks: int = Field(1, ge=1)
    heads: int = Field(1, ge=1, description="of each block; must divide the width")
    inner: int = Field(2048, ge=1, description="width inside the feed-forward layers")
    dropout: float = Field(0.25, ge=0, lt=1)
    batch_size: int = Field(128, ge=1, description="rows of a step")
    pretraining: float = Field(0.625, ge=0, lt=1, description="share of the epochs and minutes that all domains of a set spend together; one domain skips it")
    prompts: int = Field(2, ge=1, description="vectors that all domains share, and as many of a domain's own")
    aggregation: Literal["gate", "item", "mean"] = Field(
        "gate", description="of an item with its prompts: weighed by a gate; or by attention, of which the item's place is taken, or the mean of all places"
    )
    gate_width: int = Field(16, ge=1, description="of the layer inside the gate")
    difference_weight: float = Field(2e-3, ge=0, description="in the second stage, of the loss that keeps a domain's prompts away from the shared ones")


class ClassifiedItems(ItemRepresentation):
    """An embedding to read an item of any domain, and a row of a linear classifier to score it.

    Args:
        sizes: `n_items` I of the domain, `n_all` of all domains, and `first`, what its numbers are raised by to be those of all.
        width: D.
    """

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.n_items, self.first = sizes["n_items"], sizes["first"]
        self.embedding = nn.Embedding(sizes["n_all"] + 1, width)
        self.classes = nn.Linear(width, sizes["n_all"] + 1)
        for weight in (self.embedding.weight, self.classes.weight):
            nn.init.xavier_normal_(weight)

    def among_all(self, items: torch.Tensor) -> torch.Tensor:
        """Return the numbers that a domain's items have among those of all domains."""
        return torch.where(items > COLD, items + self.first, COLD)

    def everything(self) -> torch.Tensor:
        """Return (all + 1, D + 1): the rows of the classifier, the bias behind each."""
        return torch.cat([self.classes.weight, self.classes.bias[:, None]], 1)

    def table(self) -> torch.Tensor:
        """Return (I + 1, D + 1): the domain's rows of the classifier, the bias behind each."""
        return self.everything()[self.among_all(torch.arange(self.n_items + 1, device=self.classes.bias.device))]

    def read(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) embeddings."""
        return rows_of(self.embedding.weight, self.among_all(items))

    def some(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return (N, D + 1): of (N,) numbers among those of all domains, the rows of the classifier, the bias behind each."""
        return torch.cat([rows_of(self.classes.weight, numbers), self.classes.bias[numbers, None]], 1)


class Prompts(nn.Module):
    """What becomes of a purchase beside P vectors that all domains share and P of its own domain.

    Args:
        width: D.
        n: P.
        aggregation: "gate", "item" or "mean".
        gate_width: Of the layer inside the gate.
        dropout: Inside the gate.
    """

    def __init__(self, width: int, n: int, aggregation: str, gate_width: int, dropout: float) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.shared, self.own = (nn.Parameter(torch.empty(n, width)) for _ in range(2))
        if aggregation == "gate":
            self.gate = nn.Sequential(nn.Linear(2 * width, gate_width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(gate_width, 1))
        else:
            self.inward = nn.Linear(width, 3 * width, bias=False)
            self.outward = nn.Linear(width, width, bias=False)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.xavier_normal_(weight)

    def forward(self, purchases: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of (B, T, D)."""
        prompts = torch.cat([self.shared, self.own])
        together = torch.cat([prompts.expand(*purchases.shape[:2], -1, -1), purchases[:, :, None]], 2)  # (B, T, 2 P + 1, D)
        if self.aggregation == "gate":
            beside = purchases[:, :, None].expand_as(together)
            shares = self.gate(torch.cat([together, beside], -1)).softmax(2)
            return (shares * together).sum(2)
        queries, keys, values = self.inward(together).chunk(3, -1)
        said = functional.layer_norm(together + self.outward(functional.scaled_dot_product_attention(queries, keys, values)), together.shape[-1:])
        return said[:, :, -1] if self.aggregation == "item" else said.mean(2)

    def difference_loss(self) -> torch.Tensor:
        """Return the mean square of own^T shared, (D, D), each prompt at length 1; the lengths are no way out, no gradient goes through them."""
        own, shared = (p / (p.norm(dim=1, keepdim=True).detach() + 1e-6) for p in (self.own, self.shared))
        return (own.T @ shared).square().mean()


class PromptEncoder(SequenceEncoder):
    """Positions, prompts beside every purchase, and causal blocks of attention.

    Args:
        settings: The ranker's.
    """

    def __init__(self, settings: McrplSettings) -> None:
        super().__init__()
        s = settings
        self.positions = nn.Parameter(torch.empty(s.max_history, s.width))
        self.dropout = nn.Dropout(s.dropout)
        self.prompts = Prompts(s.width, s.prompts, s.aggregation, s.gate_width, s.dropout)
        self.blocks = nn.ModuleList([Block(s.width, s.heads, s.inner, s.dropout, "relu") for _ in range(s.blocks)])
        nn.init.xavier_normal_(self.positions)
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D); what stands in places of padding means nothing."""
        vectors = self.prompts(self.dropout(purchases + self.positions[len(self.positions) - purchases.shape[1] :]))
        sees = visible_places(known, causal=True)
        for block in self.blocks:
            vectors = block(vectors, sees)
        return vectors  # type: ignore[no-any-return]


class McrplModel(SequentialModel):
    """A linear classifier of the items of all domains over a prompted transformer.

    Args:
        sizes: `n_items`, `n_all` and `first`.
        settings: The ranker's.
    """

    items: ClassifiedItems
    encoder: PromptEncoder

    def __init__(self, sizes: Mapping[str, int], settings: McrplSettings) -> None:
        super().__init__(ClassifiedItems(sizes, settings.width), PromptEncoder(settings))
        self.difference_weight, self.n_negatives = settings.difference_weight, settings.negatives

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D + 1); the 1 in the last column meets the bias of an item."""
        return functional.pad(super().expectations(batch), (0, 1), value=1.0)

    def classifier_loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the items of all domains, or over drawn ones of them."""
        expected, targets = at_questions(self.expectations(batch), batch.targets)
        targets, n_all = self.items.among_all(targets), len(self.items.classes.weight) - 1
        if not 0 < self.n_negatives < n_all:
            return full_softmax(expected, self.items.everything(), targets)
        drawn = torch.randint(n_all + 1, (self.n_negatives,), device=targets.device)
        right, wrong = self.items.some(torch.cat([targets, drawn])).split([len(targets), len(drawn)])
        return drawn_softmax(expected, right, wrong, drawn[None, :] == targets[:, None], n_all)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the classifier's loss, and that of prompts which say the same."""
        return self.classifier_loss(batch) + self.difference_weight * self.encoder.prompts.difference_loss()


class McrplRanker(TogetherRanker):
    """Scores an item by a linear classifier of the items of all domains, over a transformer that reads each purchase beside learnt prompts.

    Of a set of domains, everything is first trained on all together; then for each domain by itself, its own prompts kept away from
    the shared ones. Domains have no user and no item in common.

    Source: H. Liu, L. Guo, L. Zhu, Y. Jiang, M. Gao and H. Yin, MCRPL: A pretrain, prompt and fine-tune paradigm for non-overlapping
    many-to-one cross-domain recommendation, ACM TOIS 2024.
    Departures: as in the authors' code the second stage tunes everything, and the first knows no domain's own prompts: each domain's
    begin as what the first stage has learnt in their place. One domain alone has the second stage only. A question stands at
    every place of a row, with attention to what was before, not one at its end with a row for every purchase. The layers of the
    transformer have biases, normalise with learnt scale and have the dropout of the rest, positions count from the newest purchase,
    and Adam keeps its usual moments.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout and the order of batches.
    """

    name: ClassVar[str] = "mcrpl"
    settings_class = McrplSettings
    settings: McrplSettings

    first: dict[str, int]  # what a domain's numbers are raised by, during a fit
    n_all: int

    def prepare(self, shops: Sequence[Purchases]) -> None:
        """Count the items of all domains; one that is learnt alone knows no others."""
        counts = [len(shop.items) for shop in shops]
        self.n_all = sum(counts)
        self.first = {shop.domain.name: sum(counts[:place]) for place, shop in enumerate(shops)}

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the numbers of items, here and of all, and where the domain's begin."""
        return {**super().measure(purchases), "n_all": self.n_all, "first": self.first[purchases.domain.name]}

    def build(self, sizes: Mapping[str, int]) -> McrplModel:
        """Make an untrained model."""
        return McrplModel(sizes, self.settings)

    def united_model(self, shops: Sequence[Purchases]) -> McrplModel:
        """Make the untrained model of all domains."""
        return self.build({"n_items": self.n_all, "n_all": self.n_all, "first": 0})

    def united_loss(self, model: McrplModel) -> Any:
        """Return the classifier's loss alone."""
        return model.classifier_loss
