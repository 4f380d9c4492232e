"""The transformer under most sequence encoders, causal or reading both sides."""

import torch
from torch import nn
from torch.nn import functional

from recmerge.rankers.sequential.model import SequenceEncoder


class Attention(nn.Module):
    """Multi-head attention of purchases to purchases.

    Args:
        width: D.
        heads: Of D / heads numbers each.
        dropout: Of attention weights and of the result.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be shared by {heads} heads")
        self.heads = heads
        self.rate = dropout
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Attend.

        Args:
            vectors: (B, T, D).
            visible: (B, 1, T, T) True where the third index may look at the fourth.

        Returns:
            (B, T, D).
        """
        b, t, d = vectors.shape
        queries, keys, values = self.inward(vectors).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=visible, dropout_p=self.rate if self.training else 0.0)
        return self.dropout(self.outward(found.transpose(1, 2).reshape(b, t, d)))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two layers with an activation between.

    Args:
        width: D.
        inner: Width between the layers.
        dropout: Of the result.
        activation: "gelu" or "relu".
    """

    def __init__(self, width: int, inner: int, dropout: float, activation: str = "gelu") -> None:
        super().__init__()
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.activation = functional.relu if activation == "relu" else functional.gelu

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (..., D)."""
        return self.dropout(self.narrow(self.activation(self.widen(vectors))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward with residuals, normalised after each as in BERT or before each as in SASRec.

    Args:
        width: D.
        heads: Of the attention.
        inner: Width inside the feed-forward.
        dropout: Everywhere.
        activation: "gelu" or "relu".
        norm_first: Normalise what goes in, not what comes out.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float, activation: str = "gelu", *, norm_first: bool = False) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.forward_layer = FeedForward(width, inner, dropout, activation)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.norm_first = norm_first

    def forward(self, vectors: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D); see `Attention`."""
        first, second = self.norms
        if self.norm_first:
            vectors = vectors + self.attention(first(vectors), visible)
            return vectors + self.forward_layer(second(vectors))  # type: ignore[no-any-return]
        vectors = first(vectors + self.attention(vectors, visible))
        return second(vectors + self.forward_layer(vectors))  # type: ignore[no-any-return]


class TransformerEncoder(SequenceEncoder):
    """Learned positions, counted from the newest purchase, and blocks of attention.

    Args:
        width: D.
        blocks: How many.
        heads: Of each.
        inner: Width inside the feed-forward.
        dropout: Everywhere.
        length: Places at most.
        causal: A place sees none after it; False: every place sees all.
        activation: "gelu" or "relu".
        norm_first: As in SASRec; False: as in BERT.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int,
        inner: int,
        dropout: float,
        length: int,
        *,
        causal: bool = True,
        activation: str = "gelu",
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.positions, std=0.02)
        self.edge = nn.LayerNorm(width)  # behind the blocks where they normalise what goes in, before them otherwise
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(width, heads, inner, dropout, activation, norm_first=norm_first) for _ in range(blocks)])
        self.causal = causal
        self.norm_first = norm_first
        draw_layers(self)

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D); what stands in places of padding means nothing."""
        return self.look(purchases, known, causal=self.causal)

    def look(self, purchases: torch.Tensor, known: torch.Tensor, *, causal: bool) -> torch.Tensor:
        """Read as `forward` does, in one direction or in both whatever the encoder was made for."""
        vectors = purchases + self.positions[len(self.positions) - purchases.shape[1] :]
        vectors = self.dropout(vectors if self.norm_first else self.edge(vectors))
        sees = visible_places(known, causal=causal)
        for block in self.blocks:
            vectors = block(vectors, sees)
        return self.edge(vectors) if self.norm_first else vectors  # type: ignore[no-any-return]


def visible_places(known: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Return (B, 1, T, T): which places each place sees; itself always, so that no softmax is over nothing.

    Args:
        known: (B, T) False where there is padding.
        causal: Whether later places are hidden.

    Returns:
        The mask, True where one may look.
    """
    t = known.shape[1]
    sees = known[:, None, None, :].expand(-1, 1, t, t)
    if causal:
        sees = sees & torch.ones(t, t, dtype=torch.bool, device=known.device).tril()
    return sees | torch.eye(t, dtype=torch.bool, device=known.device)


def draw_layers(module: nn.Module) -> None:
    """Draw the weights of all linear layers inside, with a standard deviation of .02, and set their biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
