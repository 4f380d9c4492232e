"""The sequential ranker that reads items and their attributes in two streams: FDSA."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from recmerge.rankers.sasrec import SasRecSettings
from recmerge.rankers.sequential.attributes import AttributedRanker, Attributes
from recmerge.rankers.sequential.model import IdItems, NextItemModel, SequenceEncoder
from recmerge.rankers.sequential.transformer import TransformerEncoder, draw_layers


class ItemsWithAttributes(IdItems):
    """Embeddings of items, read side by side with a weighted sum of the embeddings of their attributes.

    Args:
        sizes: `n_items`, `n_attributes` and `attributes_per_item`.
        width: D.
    """

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__(sizes["n_items"], width)
        self.attributes = Attributes(sizes["n_items"], sizes["n_attributes"], sizes["attributes_per_item"], width)
        self.weigh = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        draw_layers(self.weigh)

    def features(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D): the attributes of each item, weighed by a softmax over them; 0 for an item that has none."""
        has = self.attributes.of_items[items]
        vectors = self.attributes.embedding(has)  # (B, T, M, D)
        weights = self.weigh(vectors).masked_fill((has == 0)[..., None], torch.finfo(vectors.dtype).min).softmax(2)
        return (weights * vectors * (has > 0)[..., None]).sum(2)  # type: ignore[no-any-return]

    def read(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, 2 D): items in the first half, their attributes in the second."""
        return torch.cat([super().read(items), self.features(items)], -1)


class TwoStreams(SequenceEncoder):
    """A causal transformer for each half of what is read; a layer joins what they expect.

    Args:
        settings: The ranker's.
    """

    def __init__(self, settings: SasRecSettings) -> None:
        super().__init__()
        s = settings
        self.streams = nn.ModuleList([TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history) for _ in range(2)])
        self.join = nn.Linear(2 * s.width, s.width)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) for (B, T, 2 D)."""
        found = [stream(half, known) for stream, half in zip(self.streams, purchases.chunk(2, -1), strict=True)]
        return self.join(torch.cat(found, -1))  # type: ignore[no-any-return]


class FdsaModel(NextItemModel):
    """Items and attributes in, an item out.

    Args:
        sizes: As for `ItemsWithAttributes`.
        settings: The ranker's.
    """

    items: ItemsWithAttributes

    def __init__(self, sizes: Mapping[str, int], settings: SasRecSettings) -> None:
        s = settings
        super().__init__(ItemsWithAttributes(sizes, s.width), TwoStreams(s), by_pairs=s.loss == "bce", negatives=s.negatives)
        self.every_place = s.every_place


class FdsaRanker(AttributedRanker):
    """Scores an item by the product of its embedding with what two causal transformers, over items and over attributes, make of the purchases.

    Attributes are the brand and the category with those above it, see `attribute_names`; a softmax weighs those of one item by what two
    layers say of each (vanilla attention). Where a catalogue has none, the second stream reads positions alone.

    Source: T. Zhang, P. Zhao, Y. Liu, V. S. Sheng, J. Xu, D. Wang, G. Liu and X. Zhou, Feature-level deeper self-attention network for
    sequential recommendation, IJCAI 2019.
    Departures: by default cross-entropy over the whole catalogue, as RecBole's, not the binary one with one negative, which `loss: bce`
    gives. Attention over attributes is RecBole's, one weight for each by two layers, where the paper has one layer. No texts among the
    attributes. Each stream has positions of its own, counted from the newest purchase; a history longer than is read is several rows.
    Blocks are those of `SasRecRanker` (GELU; widths as RecBole's, not the paper's).

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "fdsa"
    settings_class = SasRecSettings
    settings: SasRecSettings

    def build(self, sizes: Mapping[str, int]) -> FdsaModel:
        """Make an untrained model."""
        return FdsaModel(sizes, self.settings)

    def attributes_in(self, model: FdsaModel) -> Attributes:
        """Return where a model keeps them."""
        return model.items.attributes
