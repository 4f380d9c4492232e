"""Items as words, and a transformer that reads words on both sides."""

import torch
from torch import nn
from torch.nn import functional

from recmerge.rankers.sequential.model import ItemRepresentation, SequenceEncoder
from recmerge.rankers.sequential.transformer import Block
from recmerge.rankers.sequential.words import VALUE


class WordItems(ItemRepresentation):
    """The words of I items, and what the encoder made of each when it last read them.

    Args:
        n_items: I.
        longest: W, words of an item at most.
        width: D.
    """

    words: torch.Tensor
    kinds: torch.Tensor
    vectors: torch.Tensor

    def __init__(self, n_items: int, longest: int, width: int) -> None:
        super().__init__()
        self.register_buffer("words", torch.full((n_items + 1, longest), -1, dtype=torch.int32))  # -1: no word
        self.register_buffer("kinds", torch.zeros(n_items + 1, longest, dtype=torch.int8))
        self.register_buffer("vectors", torch.zeros(n_items + 1, width))

    def table(self) -> torch.Tensor:
        """Return (I + 1, D)."""
        return self.vectors


class WordEncoder(SequenceEncoder):
    """A transformer that reads words on both sides, with an extra first place for what they say together.

    Args:
        n_words: Of the vocabulary; one more stands for a hidden word.
        max_tokens: Words of a text at most, the first place among them.
        max_history: Purchases of a text at most.
        window: Words that a word sees, half of them before it and half behind; the first place sees all and is seen by all.
        width: D.
        blocks: How many.
        heads: Of each.
        inner: Width inside the feed-forward.
        dropout: Everywhere.
    """

    def __init__(
        self, n_words: int, max_tokens: int, max_history: int, window: int, *, width: int, blocks: int, heads: int, inner: int, dropout: float
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(n_words + 1, width)
        self.kinds = nn.Embedding(3, width)
        self.positions = nn.Embedding(max_tokens, width)
        self.places = nn.Embedding(max_history + 1, width)
        self.first = nn.Parameter(torch.empty(width))
        self.edge = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(width, heads, inner, dropout) for _ in range(blocks)])
        self.reach = window // 2
        for weights in (self.first, *(part.weight for part in self.children() if isinstance(part, nn.Embedding))):
            nn.init.normal_(weights, std=0.02)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of purchases that are a word each, as a recombination of models may have them; every place holds what all say together."""
        places = known.flip(1).cumsum(1).clamp(max=len(self.places.weight) - 1)
        return self.attend(purchases.flip(1) + self.kinds.weight[VALUE], known.flip(1), places)[:, :1].expand(-1, purchases.shape[1], -1)

    def attend(self, vectors: torch.Tensor, known: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Read words.

        Args:
            vectors: (B, L, D) of words and their kinds.
            known: (B, L) False where there is no word.
            places: (B, L) which purchase, the newest being 1, a word belongs to.

        Returns:
            (B, L + 1, D); what they say together comes first.
        """
        b, length = known.shape
        vectors = vectors + self.positions.weight[1 : length + 1] + self.places(places)
        first = (self.first + self.kinds.weight[0] + self.positions.weight[0] + self.places.weight[0]).expand(b, 1, -1)
        vectors = self.dropout(self.edge(torch.cat([first, vectors], 1)))
        at = torch.arange(length + 1, device=known.device)
        near = ((at[:, None] - at).abs() <= self.reach) | (at == 0) | (at[:, None] == 0)
        visible = near & functional.pad(known, (1, 0), value=True)[:, None, None, :]
        for block in self.blocks:
            vectors = block(vectors, visible)
        return vectors
