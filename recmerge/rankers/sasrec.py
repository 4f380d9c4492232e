"""The sequential ranker by self-attention: SASRec."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from recmerge.rankers.sequential.model import IdItems, NextItemModel
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import RowsSettings, TransformerSettings
from recmerge.rankers.sequential.transformer import TransformerEncoder


class SasRecSettings(RowsSettings, TransformerSettings):
    """Size of the transformer, and what it learns from."""

    dropout: float = Field(0.5, ge=0, lt=1)
    loss: Literal["softmax", "bce"] = Field("softmax", description="cross-entropy over the catalogue, or the paper's binary one with one negative a place")


class SasRecModel(NextItemModel):
    """A causal transformer over item embeddings.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    def __init__(self, n_items: int, settings: SasRecSettings) -> None:
        s = settings
        encoder = TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history)
        super().__init__(IdItems(n_items, s.width), encoder, by_pairs=s.loss == "bce", negatives=s.negatives)
        self.every_place = s.every_place


class SasRecRanker(SequentialRanker):
    """Scores an item by the product of its embedding with what a causal transformer makes of the purchases.

    Source: W.-C. Kang and J. McAuley, Self-attentive sequential recommendation, ICDM 2018.
    Departures: by default cross-entropy over the whole catalogue, as in A. Petrov and C. Macdonald, gSASRec, RecSys 2023, and RecBole,
    not the binary one with one negative, which `loss: bce` gives. Layers normalise what comes out and use GELU, with
    two heads and four times the width inside, as RecBole's; embeddings are not scaled by the root of the width.
    A history longer than is read is learnt from in several rows, not its newest part alone.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "sasrec"
    settings_class = SasRecSettings
    settings: SasRecSettings

    def build(self, sizes: Mapping[str, int]) -> SasRecModel:
        """Make an untrained model."""
        return SasRecModel(sizes["n_items"], self.settings)
