"""The transferable ranker over whitened title vectors: UniSRec."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import info_nce
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases
from recmerge.rankers.sequential.text import Vectors, titles_of
from recmerge.rankers.sequential.together import TitledItems, TransferModel, TransferRanker, TransferSettings, some_asked
from recmerge.rankers.sequential.transformer import TransformerEncoder

_LEAST_NOISE = 0.01
_OF_WORDS = 0.1  # of the changed sequences, those that lack words, as in the authors' code


class UniSRecSettings(TransferSettings):
    """The adaptor of title vectors, and the first stage."""

    experts: int = Field(8, ge=1, description="whitening layers that a gate mixes")
    adaptor_dropout: float = Field(0.2, ge=0, lt=1, description="of title vectors")
    transductive: bool = Field(False, description="in the second stage, an embedding of each item is added to what its title says")
    sequence_weight: float = Field(1e-3, ge=0, description="of the loss that tells a buyer's purchases from those of others")
    drop: float = Field(0.2, ge=0, lt=1, description="share of the purchases that a changed sequence lacks, or whose titles lack such a share of their words")
    drop_words: bool = Field(True, description="a tenth of the changed sequences lack words; every title is read twice then, before the first stage")


class MixtureAdaptor(nn.Module):
    """Whitening layers, each a shift and a rotation with scaling, mixed by a gate that is noisy in training.

    Args:
        features: F.
        width: D.
        experts: E.
        dropout: Of what goes in.
    """

    def __init__(self, features: int, width: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.shifts = nn.Parameter(torch.zeros(experts, features))
        self.weights = nn.Parameter(torch.empty(experts, features, width))
        self.gate = nn.Parameter(torch.zeros(features, experts))
        self.noise = nn.Parameter(torch.zeros(features, experts))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.weights, std=0.02)

    def gates(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (N, E) shares of the experts for (N, F) vectors."""
        logits = vectors @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * (functional.softplus(vectors @ self.noise) + _LEAST_NOISE)
        return logits.softmax(-1)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (N, D) of (N, F): the mean of (vectors - shift) @ weights over the experts, weighed by the gate."""
        gates, seen = self.gates(vectors), self.dropout(vectors)
        n_experts, features, width = self.weights.shape
        said = (seen @ self.weights.transpose(0, 1).reshape(features, n_experts * width)).view(-1, n_experts, width)
        said = said - torch.einsum("ef,efd->ed", self.shifts, self.weights)
        return (gates[:, None, :] @ said)[:, 0]


class AdaptedTitles(TitledItems):
    """What an adaptor makes of frozen title vectors.

    Args:
        sizes: `n_items` I and `n_features` F.
        settings: The ranker's.
        transductive: Add an embedding of each item.
    """

    vectors: torch.Tensor

    def __init__(self, sizes: Mapping[str, int], settings: UniSRecSettings, *, transductive: bool) -> None:
        n_items, features, s = sizes["n_items"], sizes["n_features"], settings
        super().__init__(n_items)
        self.register_buffer("vectors", torch.zeros(n_items + 1, features, dtype=torch.float16))
        self.adaptor = MixtureAdaptor(features, s.width, s.experts, s.adaptor_dropout)
        self.cold = nn.Parameter(torch.randn(s.width) * 0.02)
        self.ids = nn.Parameter(torch.randn(n_items + 1, s.width) * 0.02) if transductive else None

    def furnish(self, vectors: Vectors) -> None:
        """Take over (I, F) title vectors."""
        self.vectors[1:] = torch.from_numpy(vectors).to(self.vectors.device)

    def of(self, items: torch.Tensor) -> torch.Tensor:
        """Return (N, D) vectors of (N,) numbers; title vectors are scaled to a mean square of 1 before."""
        known = self.vectors[items].float() * self.vectors.shape[1] ** 0.5
        found = torch.where((items > COLD)[:, None], self.adaptor(known), self.cold)
        return found if self.ids is None else found + self.ids[items]


class UniSRecModel(TransferModel):
    """A causal transformer over adapted titles.

    Args:
        sizes: `n_items` and `n_features`.
        settings: The ranker's.
        changed: Number of the first title that lacks words, less 1; 0: there are none. Only a model of all domains has such.
        transductive: Add an embedding of each item.
    """

    items: AdaptedTitles

    def __init__(self, sizes: Mapping[str, int], settings: UniSRecSettings, *, changed: int = 0, transductive: bool = False) -> None:
        s = settings
        encoder = TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history)
        super().__init__(AdaptedTitles(sizes, s, transductive=transductive), encoder, s)
        self.sequence_weight, self.drop, self.changed = s.sequence_weight, s.drop, changed

    def transfer_loss(self, batch: Batch) -> torch.Tensor:
        """Return how hard it is to tell a question's item from those of other questions, and a changed sequence's own one from others."""
        changed = [self.changed_items(batch.items)] if self.sequence_weight else []
        vectors, (read, right, *of_changed) = self.items.once(batch.items, batch.targets, *changed)
        found, asked = self.expected(batch.items, vectors, read), some_asked(batch.targets)
        loss = info_nce(found[asked], functional.embedding(right[asked], vectors), self.temperature, batch.targets[asked])
        for items, places in zip(changed, of_changed, strict=True):
            again = self.expected(items, vectors, places)[:, -1]
            loss = loss + self.sequence_weight * info_nce(found[:, -1], again, self.temperature, batch.targets[:, -1])
        return loss

    def changed_items(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T) sequences that lack purchases, or for a few rows purchases some of whose titles lack words."""
        fewer = drop_items(items, self.drop)
        if not self.changed:
            return fewer
        lacks_words = (items > COLD) & (torch.rand(items.shape, device=items.device) < self.drop)
        shorter = torch.where(lacks_words, items + self.changed, items)
        return torch.where(torch.rand(len(items), 1, device=items.device) < _OF_WORDS, shorter, fewer)


def drop_items(items: torch.Tensor, share: float) -> torch.Tensor:
    """Leave purchases out at random, never all of a row, and close the gaps.

    Args:
        items: (B, T) numbers, padded on the left.
        share: Of the purchases.

    Returns:
        (B, T) numbers, padded on the left.
    """
    known = items > COLD
    kept = known & (torch.rand(items.shape, device=items.device) >= share)
    kept[:, -1] |= known[:, -1] & ~kept.any(1)
    order = kept.long().argsort(dim=1, stable=True)
    return torch.where(kept, items, COLD).gather(1, order)


def drop_words(titles: Sequence[str], share: float, seed: int) -> list[str]:
    """Leave words out at random, never all of a title.

    Args:
        titles: Texts.
        share: Of their words.
        seed: Of what is left out.

    Returns:
        The shorter texts.
    """
    draw = np.random.default_rng(seed)
    changed = []
    for title in titles:
        words = title.split()
        kept = [word for word, chance in zip(words, draw.random(len(words)), strict=True) if chance >= share]
        changed.append(" ".join(kept or words[:1]))
    return changed


class UniSRecRanker(TransferRanker):
    """Scores an item by the cosine of its title's vector, adapted by a mixture of whitening layers, with what a causal transformer makes of the purchases.

    Of a set of domains, the adaptor and the transformer are first trained on all together: to find each next item among those of the other
    questions of a batch, whatever their domain, and to find each sequence again that lacks purchases or words. Then each domain
    trains its adaptor by itself.

    Source: Y. Hou, S. Mu, W. X. Zhao, Y. Li, B. Ding and J.-R. Wen, Towards universal sequence representation learning for recommender
    systems, KDD 2022.
    Departures: titles alone are read, by all-MiniLM-L6-v2 (384 numbers) and not by BERT (768); scaled to a mean square of 1. The first
    stage sees the training events of the very domains that are ranked later, not of others, with batches of 256 rows, not 8,192, and up to
    4,096 questions; one domain alone has no first stage, like the paper's variant without pre-training. A question stands at every place of
    a row, not one at its end with a row for every purchase. Experts share the dropout of a title. Whether purchases or words are left out
    is drawn for each row, not for a batch. Positions count from the newest purchase.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, noise, what sequences lack, and the order of batches.
    """

    name: ClassVar[str] = "unisrec"
    settings_class = UniSRecSettings
    settings: UniSRecSettings
    own = ("items.vectors", "items.ids")

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the number of items, and of those that stand for a title."""
        return {**super().measure(purchases), "n_features": self.vectors[purchases.domain.name].shape[1]}

    def build(self, sizes: Mapping[str, int]) -> UniSRecModel:
        """Make an untrained model."""
        return UniSRecModel(sizes, self.settings, transductive=self.settings.transductive)

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Tell the model what the titles say."""
        assert isinstance(model, UniSRecModel)
        model.items.furnish(self.vectors.pop(purchases.domain.name))

    def united_model(self, shops: Sequence[Purchases]) -> UniSRecModel:
        """Make the untrained model of all domains, without embeddings of items; behind the titles stand the same without some words."""
        s, vectors = self.settings, [self.vectors[shop.domain.name] for shop in shops]
        changed = sum(map(len, vectors)) if s.drop_words and s.sequence_weight else 0
        if changed:
            vectors += [self.vectors_of(drop_words(titles_of(shop), s.drop, self.seed)) for shop in shops]
        known: Any = np.concatenate(vectors)
        model = UniSRecModel({"n_items": len(known), "n_features": known.shape[1]}, s, changed=changed)
        model.items.furnish(known)
        return model
