"""The sequential ranker that is first taught by what purchases say of themselves: S3-Rec."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.rankers.sasrec import SasRecModel, SasRecSettings
from recmerge.rankers.sequential.attributes import AttributedRanker, Attributes
from recmerge.rankers.sequential.batches import Batch, Rows
from recmerge.rankers.sequential.losses import draw_negatives
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases
from recmerge.rankers.sequential.ranker import device_of
from recmerge.rankers.sequential.training import train
from recmerge.rankers.sequential.transformer import TransformerEncoder


class S3RecSettings(SasRecSettings):
    """Those of SASRec, and of the four tasks before; ratio and weights are those of the authors' code."""

    pretraining: float = Field(0.5, ge=0, lt=1, description="share of `minutes` spent on the four tasks, and of `epochs` that these may last at most")
    mask_ratio: float = Field(0.2, gt=0, lt=1, description="of purchases hidden in the first stage")
    aap_weight: float = Field(0.2, ge=0, description="of associated attribute prediction")
    mip_weight: float = Field(1.0, ge=0, description="of masked item prediction")
    map_weight: float = Field(1.0, ge=0, description="of masked attribute prediction")
    sp_weight: float = Field(0.5, ge=0, description="of segment prediction")


class S3RecModel(SasRecModel):
    """SASRec with what the four tasks need.

    Args:
        sizes: `n_items`, `n_attributes` and `attributes_per_item`.
        settings: The ranker's.
    """

    encoder: TransformerEncoder

    def __init__(self, sizes: Mapping[str, int], settings: S3RecSettings) -> None:
        super().__init__(sizes["n_items"], settings)
        self.n_items, width = sizes["n_items"], settings.width
        self.attributes = Attributes(sizes["n_items"], sizes["n_attributes"], sizes["attributes_per_item"], width)
        self.hidden_item = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.tasks = nn.ModuleDict({task: nn.Linear(width, width) for task in ("aap", "mip", "map", "sp")})
        self.weights = {"aap": settings.aap_weight, "mip": settings.mip_weight, "map": settings.map_weight, "sp": settings.sp_weight}
        self.mask_ratio, self.length = settings.mask_ratio, settings.max_history

    def both_sides(self, items: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Read with every place seeing all.

        Args:
            items: (B, T) numbers.
            hidden: (B, T) True where the item is not shown.

        Returns:
            (B, T, D).
        """
        vectors = torch.where(hidden[..., None], self.hidden_item, self.items.read(items))
        return self.encoder.look(vectors, items > COLD, causal=False)

    def self_supervised(self, batch: Batch) -> torch.Tensor:
        """Return the weighted sum of the four losses, each summed over its questions, divided by the number of purchases."""
        items = batch.whole()[:, -self.length :]
        known = items > COLD
        hidden = known & (torch.rand(items.shape, device=items.device) < self.mask_ratio)
        hidden[:, -1] = known[:, -1]  # the newest always, as in the authors' code: what the second stage asks for
        found = self.both_sides(items, hidden)
        shown = known & ~hidden
        losses = {
            "aap": self.attribute_loss(self.tasks["aap"](found[shown]), items[shown]),
            "mip": self.masked_item_loss(self.tasks["mip"](found[hidden]), items[hidden], draw_negatives(self.n_items, 1, items)[..., 0][hidden]),
            "map": self.attribute_loss(self.tasks["map"](found[hidden]), items[hidden]),
            "sp": self.segment_loss(items, *segments(items)),
        }
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum() / known.sum()

    def attribute_loss(self, vectors: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return the binary cross-entropy of each attribute with whether an item has it, summed.

        Args:
            vectors: (N, D), made of what the encoder says.
            items: (N,) numbers.

        Returns:
            A scalar.
        """
        scores = vectors @ self.attributes.embedding.weight.T  # (N, A + 1); the first column is padding
        has = self.attributes.of_items[items]
        return functional.softplus(scores[:, 1:]).sum() - (scores.gather(1, has) * (has > 0)).sum()

    def masked_item_loss(self, vectors: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
        """Return -log sigmoid(f of a hidden item - f of another), summed; f is the sigmoid of a product, as in the paper.

        Args:
            vectors: (N, D), made of what the encoder says.
            right: (N,) numbers of the hidden items.
            wrong: (N,) numbers of others; the cold one, where all others were bought, teaches nothing.

        Returns:
            A scalar.
        """
        told = wrong > COLD
        return _told_apart(vectors[told], self.items.read(right[told]), self.items.read(wrong[told]))

    def segment_loss(self, items: torch.Tensor, inside: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return -log sigmoid(f of a hidden segment - f of a foreign one), summed; vectors are those of the last places.

        Args:
            items: (B, T) numbers.
            inside: (B, T) True in the segment.
            others: (B, T) numbers of the foreign segment, in the same places.

        Returns:
            A scalar.
        """
        known = items > COLD
        outside = known & ~inside
        last = self.both_sides(torch.cat([items, items, others]), torch.cat([inside, outside, outside]))[:, -1]
        context, right, wrong = last.chunk(3)
        return _told_apart(self.tasks["sp"](context), right, wrong)


def segments(items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a segment of each row, of at most half its length, and a foreign one from the rows laid end to end.

    Args:
        items: (B, T) numbers, padded on the left.

    Returns:
        (B, T) True in the row's own segment; (B, T) the row with the foreign segment in its place.
    """
    known = items > COLD
    lengths = known.sum(1, keepdim=True)
    sizes = 1 + _below(lengths // 2)
    starts = items.shape[1] - lengths + _below(lengths - sizes + 1)
    offsets = torch.arange(items.shape[1], device=items.device) - starts
    inside = (offsets >= 0) & (offsets < sizes)
    flat = items[known]
    foreign = flat[(_below(torch.full_like(lengths, len(flat))) + offsets) % len(flat)]
    return inside, torch.where(inside, foreign, items)


def _told_apart(vectors: torch.Tensor, right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    found, other = (torch.sigmoid((vectors * each).sum(-1)) for each in (right, wrong))
    return functional.softplus(other - found).sum()


def _below(ends: torch.Tensor) -> torch.Tensor:
    """Draw a whole number from 0 up to, and without, each end; 0 where the end is 0."""
    return (torch.rand(ends.shape, device=ends.device, dtype=torch.float64) * ends).long()


class S3RecRanker(AttributedRanker):
    """Scores as SASRec does, after a first stage with every place seeing all that predicts, by products of vectors, from a sequence with hidden purchases:
    the attributes of those shown, the hidden items, their attributes, and a hidden segment.

    Attributes are the brand and the category with those above it, see `attribute_names`; where a catalogue has none, two of the tasks fall away.

    Source: K. Zhou, H. Wang, W. X. Zhao, Y. Zhu, S. Wang, F. Zhang, Z. Wang and J.-R. Wen, S3-Rec: Self-supervised learning for sequential
    recommendation with mutual information maximization, CIKM 2020.
    Departures: the second stage has by default the cross-entropy of `SasRecRanker`, not one negative a place, which `loss: bce` gives.
    Attributes of what is shown are predicted, as in the authors' code, from the encoder's vector, not from the item's own. The first stage
    lasts as long as `pretraining` says, without choosing among its states on validation. A foreign segment is drawn from its batch. In the
    second stage a history is one row with a question at every place, or several rows where it is longer than is read.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, what is hidden, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "s3rec"
    settings_class = S3RecSettings
    settings: S3RecSettings

    def build(self, sizes: Mapping[str, int]) -> S3RecModel:
        """Make an untrained model."""
        return S3RecModel(sizes, self.settings)

    def attributes_in(self, model: S3RecModel) -> Attributes:
        """Return where a model keeps them."""
        return model.attributes

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Train by the four tasks, and then as SASRec."""
        assert isinstance(model, S3RecModel)
        s = self.settings
        half, end = s.deadline(s.pretraining), s.deadline()
        facts = {}
        if epochs := round(s.pretraining * s.epochs):
            rows = Rows(purchases, s.max_history, every_place=False, device=device_of(model))  # every beginning of a history, as in the authors' code
            first = train(model, rows, s.schedule(epochs), None, seed=self.seed, loss=model.self_supervised, deadline=half, say=self.say)
            facts["pretraining"] = first.facts()
        return {**self.trained(model, purchases, deadline=end).facts(), **facts}
