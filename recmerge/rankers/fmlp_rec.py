"""The sequential ranker by learned filters: FMLP-Rec."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from recmerge.rankers.sequential.model import IdItems, NextItemModel, SequenceEncoder
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import SequentialSettings, SoftmaxSettings
from recmerge.rankers.sequential.transformer import FeedForward, draw_layers


class FmlpRecSettings(SoftmaxSettings, SequentialSettings):
    """Size of the network, and what it learns from."""

    dropout: float = Field(0.5, ge=0, lt=1)
    blocks: int = Field(2, ge=1)
    inner: int = Field(256, ge=1, description="width inside the feed-forward layers")
    loss: Literal["softmax", "bce"] = Field("softmax", description="cross-entropy over the catalogue, or the paper's binary one with one negative")


class Filter(nn.Module):
    """Weighs each frequency of each feature: a circular convolution over a fixed number of places.

    Args:
        width: D.
        length: L places.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.weights = nn.Parameter(torch.empty(length // 2 + 1, width, 2))  # real and imaginary parts
        nn.init.normal_(self.weights, std=0.02)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (B, L, D) of (B, L, D)."""
        weighed = torch.fft.rfft(vectors, dim=1, norm="ortho") * torch.view_as_complex(self.weights)
        return torch.fft.irfft(weighed, n=self.length, dim=1, norm="ortho")  # type: ignore[no-any-return]


class FilterEncoder(SequenceEncoder):
    """Learned positions, counted from the newest purchase, and blocks of a filter and a feed-forward, each with a residual and normalised.

    A filter goes round the end: what it makes of a place depends on later ones too, so the last place alone may be asked.

    Args:
        width: D.
        blocks: How many.
        inner: Width inside the feed-forward.
        dropout: Everywhere.
        length: Places; shorter histories are padded to it.
    """

    def __init__(self, width: int, blocks: int, inner: int, dropout: float, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=0.02)
        self.filters = nn.ModuleList([Filter(width, length) for _ in range(blocks)])
        self.forwards = nn.ModuleList([FeedForward(width, inner, dropout) for _ in range(blocks)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * blocks + 1)])
        self.dropout = nn.Dropout(dropout)
        draw_layers(self)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D), of which the last place alone is an answer; of padding, only its positions are read."""
        length, t = len(self.positions), purchases.shape[1]
        padded = nn.functional.pad(purchases * known[..., None], (0, 0, length - t, 0))
        vectors = self.dropout(self.norms[0](padded + self.positions))
        for block, (mix, feed) in enumerate(zip(self.filters, self.forwards, strict=True)):
            found = vectors + self.dropout(mix(vectors))
            if block == len(self.filters) - 1:
                found = found[:, -t:]  # nobody reads the padding any more
            vectors = self.norms[2 * block + 1](found)
            vectors = self.norms[2 * block + 2](vectors + feed(vectors))
        return vectors


class FmlpRecModel(NextItemModel):
    """Filters over item embeddings.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    every_place = False

    def __init__(self, n_items: int, settings: FmlpRecSettings) -> None:
        s = settings
        encoder = FilterEncoder(s.width, s.blocks, s.inner, s.dropout, s.max_history)
        super().__init__(IdItems(n_items, s.width), encoder, by_pairs=s.loss == "bce", negatives=s.negatives)


class FmlpRecRanker(SequentialRanker):
    """Scores an item by the product of its embedding with what filters in the frequency domain make of the purchases.

    Source: K. Zhou, H. Yu, W. X. Zhao and J.-R. Wen, Filter-enhanced MLP is all you need for sequential recommendation, WWW 2022.
    Departures: by default cross-entropy over the whole catalogue, not the binary one with one negative, which `loss: bce` gives, and which
    draws items that the row does not hold; the padding's embedding is 0 while its position is read, and a vector drawn once in the authors'
    code. As there, every prefix of a history is a row and is asked at its end only.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "fmlp_rec"
    settings_class = FmlpRecSettings
    settings: FmlpRecSettings

    def build(self, sizes: Mapping[str, int]) -> FmlpRecModel:
        """Make an untrained model."""
        return FmlpRecModel(sizes["n_items"], self.settings)
