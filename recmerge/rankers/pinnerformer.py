"""The sequential ranker that expects whatever is bought in the coming weeks, not only what is bought next: PinnerFormer."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.rankers.sequential.batches import Batch
from recmerge.rankers.sequential.losses import last_places, rows_of
from recmerge.rankers.sequential.model import IdItems, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases
from recmerge.rankers.sequential.ranker import SequentialRanker
from recmerge.rankers.sequential.settings import TransformerSettings
from recmerge.rankers.sequential.transformer import TransformerEncoder

_DAY = 86_400
_COLDEST = 0.01  # the temperature at least, as in the paper


class PinnerFormerSettings(TransformerSettings):
    """Size of the transformer, and what it is asked."""

    window_days: float = Field(28.0, ge=0, description="a purchase at most so many days later may be the answer")
    temperature: float = Field(0.1, ge=_COLDEST, description="cosines are divided by it; where it begins, for it is learnt")
    batch_negatives: int = Field(512, ge=1, description="answers of other questions of the batch, at most, that each question is set against")
    random_negatives: int = Field(512, ge=1, description="items of the catalogue that each question is set against")


class TransformerWithHead(SequenceEncoder):
    """A causal transformer and two layers behind it.

    Args:
        settings: The ranker's.
    """

    def __init__(self, settings: PinnerFormerSettings) -> None:
        super().__init__()
        s = settings
        self.transformer = TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history, norm_first=True)
        self.head = nn.Sequential(nn.Linear(s.width, s.inner), nn.GELU(), nn.Linear(s.inner, s.width))

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D)."""
        return self.head(self.transformer(purchases, known))  # type: ignore[no-any-return]


class PinnerFormerModel(SequentialModel):
    """Cosines of expectations with items.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    fewest = 64  # whose answers are one another's negatives
    share: torch.Tensor

    def __init__(self, n_items: int, settings: PinnerFormerSettings) -> None:
        super().__init__(IdItems(n_items, settings.width), TransformerWithHead(settings))
        self.temperature = nn.Parameter(torch.tensor(settings.temperature))
        self.register_buffer("share", torch.zeros(n_items + 1))  # of each item in all purchases
        self.window = int(settings.window_days * _DAY)
        self.batch_negatives, self.random_negatives = settings.batch_negatives, settings.random_negatives

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D) of length 1."""
        return functional.normalize(super().expectations(batch), dim=-1)

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D) of length 1."""
        return functional.normalize(self.items.table(), dim=-1)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of each place's answer beside the negatives; what its buyer buys later is none."""
        rows, places = (batch.items > COLD).nonzero(as_tuple=True)
        answers = draw_answers(batch, self.window)[rows, places]
        others = self.draw_others(answers)
        expected = self.expectations(batch)[rows, places]
        right, wrong = (functional.normalize(rows_of(self.items.table(), numbers), dim=-1) for numbers in (answers, others))
        coldest = (self.temperature.clamp(min=_COLDEST) - self.temperature).detach()  # its gradient stays, so that it can return
        temperature, rarity = self.temperature + coldest, self.log_chance(min(len(answers), self.batch_negatives))
        own = (expected * right).sum(-1) / temperature - rarity[answers]
        against = expected @ wrong.T / temperature - rarity[others]
        against = against.masked_fill(last_places(batch.whole(), others)[rows] > places[:, None], -torch.inf)
        return (torch.cat([own[:, None], against], 1).logsumexp(1) - own).mean()

    def draw_others(self, answers: torch.Tensor) -> torch.Tensor:
        """Return (K,) numbers of negatives: some of the batch's answers, and some of all items, the cold one among them.

        Args:
            answers: (N,) numbers.

        Returns:
            K is at most the sum of the two settings.
        """
        of_batch = answers[torch.randperm(len(answers), device=answers.device)[: self.batch_negatives]]
        return torch.cat([of_batch, torch.randint(0, len(self.share), (self.random_negatives,), device=answers.device)])

    def log_chance(self, n_of_batch: int) -> torch.Tensor:
        """Return (I + 1,) logarithms of the chance that a negative is this item: the logQ that scores are corrected by.

        Args:
            n_of_batch: How many of the negatives are answers of the batch; these come as often as they are bought.

        Returns:
            The logarithms.
        """
        n = self.random_negatives
        return ((n_of_batch * self.share + n / len(self.share)) / (n_of_batch + n)).log()


def draw_answers(batch: Batch, window: int) -> torch.Tensor:
    """Draw for each purchase one of the later ones within a window; the next one where none is.

    Args:
        batch: With targets at every place.
        window: Seconds.

    Returns:
        (B, T) numbers; meaningless where there is padding. An unknown time counts as that of the purchase before it.
    """
    whole, t = batch.whole(), batch.items.shape[1]
    times = batch.times.cummax(1).values
    ends = times[:, :-1, None] + window
    next_one = torch.arange(1, t + 1, device=whole.device).expand(len(whole), t)
    n_within = ((times[:, None, :] <= ends).sum(-1) - next_one).clamp(min=1)  # padding has a time before all
    drawn = next_one + (torch.rand(n_within.shape, device=whole.device) * n_within).long()
    return whole.gather(1, drawn)


class PinnerFormerRanker(SequentialRanker):
    """Scores an item by the cosine of its embedding with what a causal transformer expects of the coming weeks.

    Each purchase is asked for one of the later ones, drawn anew from those of the next 28 days (the dense all-action loss), by a softmax against
    answers of other questions and random items, corrected for how often each is drawn (logQ).

    Source: N. Pancha, A. Zhai, J. Leskovec and C. Rosenberg, PinnerFormer: Sequence modeling for user representation at Pinterest, KDD 2022.
    Departures: items are read by embeddings of their numbers, not by PinSage vectors; there is one kind of action, and no time is read, for a stored
    question has none. Where nothing is bought within the window, the next purchase is the answer, for purchases in shops are rarer than
    actions on Pins. All places are asked, not some; all weigh the same. What the same buyer buys later is no negative; both that and the window end
    where a row does. Chances are counted over all training purchases, not sketched as they pass. Sizes are ours.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, answers, negatives and the order of batches.
    """

    name: ClassVar[str] = "pinnerformer"
    settings_class = PinnerFormerSettings
    settings: PinnerFormerSettings

    def build(self, sizes: Mapping[str, int]) -> PinnerFormerModel:
        """Make an untrained model."""
        return PinnerFormerModel(sizes["n_items"], self.settings)

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Count how often each item is bought."""
        assert isinstance(model, PinnerFormerModel)
        counts = torch.bincount(torch.from_numpy(purchases.bought), minlength=len(model.share))
        model.share.copy_(counts / max(len(purchases.bought), 1))
