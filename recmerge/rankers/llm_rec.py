"""The ranker that reads purchases and items with one language model for all domains: LLM-Rec."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from recmerge.errors import ConfigError
from recmerge.rankers.sequential.batches import Batch, Rows
from recmerge.rankers.sequential.language import LanguageRanker, LanguageSettings, TunedLm, title_words
from recmerge.rankers.sequential.model import ItemRepresentation, SequenceEncoder, SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Asked, Purchases, mix, mixed_questions
from recmerge.rankers.sequential.ranker import SequentialRanker, device_of
from recmerge.rankers.sequential.text import titles_of
from recmerge.rankers.sequential.training import train, validation_ndcg

_TOKENS = 4096  # of titles that are read in one pass


class LlmRecSettings(LanguageSettings):
    """The language model, and what it is taught by."""

    rank: int = Field(16, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1, description="on the LoRA's input")
    negatives: int = Field(2, ge=1, description="items drawn for each row of a batch; those of one serve all")
    epochs: int = Field(20, ge=1, description="at most")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam; for a base of billions of weights 5e-5, the paper's")


class TitleItems(ItemRepresentation):
    """The titles of I items as tokens, and what a language model made of each when it last read them.

    Args:
        n_items: I.
        longest: W, tokens of a title at most.
        width: D.
    """

    words: torch.Tensor
    vectors: torch.Tensor

    def __init__(self, n_items: int, longest: int, width: int) -> None:
        super().__init__()
        self.register_buffer("words", torch.full((n_items + 1, longest), -1, dtype=torch.int32))
        self.register_buffer("vectors", torch.zeros(n_items + 1, width))

    def table(self) -> torch.Tensor:
        """Return (I + 1, D)."""
        return self.vectors


class LanguageEncoder(SequenceEncoder):
    """Reads a text, or any vectors in place of its tokens.

    Args:
        lm: The language model.
    """

    def __init__(self, lm: TunedLm) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, purchases: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) of purchases that stand for a token each, as a recombination of models may have them."""
        dtype = self.lm.held.model.get_input_embeddings().weight.dtype
        places = (known.cumsum(1) - 1).clamp(min=0)
        read = self.lm.held.decoder(inputs_embeds=purchases.to(dtype), attention_mask=known.long(), position_ids=places, use_cache=False)
        return read.last_hidden_state.float()  # type: ignore[no-any-return]


class LlmRecModel(SequentialModel):
    """A language model that reads a user's last titles as one text, and an item's title as another.

    Args:
        sizes: `n_items` and `longest`.
        lm: The language model.
        settings: The ranker's.
    """

    fewest = None  # questions share the drawn items that are read

    items: TitleItems
    encoder: LanguageEncoder

    def __init__(self, sizes: Mapping[str, int], lm: TunedLm, settings: LlmRecSettings) -> None:
        super().__init__(TitleItems(sizes["n_items"], sizes["longest"], lm.width), LanguageEncoder(lm))
        self.n_negatives = settings.negatives
        self.scale = lm.width**-0.5
        self.edges: torch.Tensor | None = None  # (S + 1,) where the items of each domain begin, if there are several

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, T, D): the state at the end token behind each purchase; a causal model sees none of the later ones there."""
        encoder, words = self.encoder.lm.held.encoder, self.items.words[batch.items]
        lengths = torch.where(batch.items > COLD, (words >= 0).sum(-1) + 1, 0)
        widest = torch.full((*words.shape[:2], 1), -1, dtype=words.dtype, device=words.device)
        whole = torch.cat([words, widest], 2)
        whole.scatter_(2, (lengths - 1).clamp(min=0)[..., None], torch.where(lengths > 0, encoder.end_id, -1)[..., None].to(whole.dtype))
        flat = whole.flatten(1)
        order = torch.argsort((flat < 0).int(), dim=1, stable=True)[:, : int(lengths.sum(1).max())]
        ids = flat.gather(1, order).long()
        start = torch.tensor(encoder.start_ids, dtype=torch.long, device=ids.device).expand(len(ids), -1)
        states = self.encoder.lm.read(torch.cat([start, torch.where(ids < 0, encoder.end_id, ids)], 1))
        ends = (lengths.cumsum(1) - 1 + len(encoder.start_ids)).clamp(min=0)
        return states.gather(1, ends[..., None].expand(-1, -1, states.shape[-1]))

    def users(self, batch: Batch) -> torch.Tensor:
        """Return (B, D); divided by the square root of D, so that products with unscaled states do not saturate a softmax."""
        if self.training or batch.items.device.type != "cpu":
            return self.expectations(batch)[:, -1] * self.scale
        alone = [replace(batch, items=row[row > COLD][None]) for row in batch.items]  # on a CPU padding is work for nothing, and changes the last digits
        return torch.cat([self.expectations(one)[:, -1] for one in alone]) * self.scale

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D), less the cold item's vector: no user's order changes, and scores are small numbers with more exact digits."""
        return self.items.vectors - self.items.vectors[COLD]

    def read_titles(self, words: torch.Tensor) -> torch.Tensor:
        """Return (N, D): the state at the end token behind each title; of the cold item, behind none.

        Args:
            words: (N, W) tokens of titles, padded with -1 at their ends.

        Returns:
            The vectors.
        """
        encoder, words = self.encoder.lm.held.encoder, words.long()
        lengths = (words >= 0).sum(1)
        words = functional.pad(words[:, : int(lengths.max())], (0, 1), value=-1)
        start = torch.tensor(encoder.start_ids, dtype=torch.long, device=words.device).expand(len(words), -1)
        states = self.encoder.lm.read(torch.cat([start, torch.where(words < 0, encoder.end_id, words)], 1))
        return states[torch.arange(len(words), device=words.device), lengths + len(encoder.start_ids)]

    @torch.no_grad()
    def refresh(self, numbers: torch.Tensor | None = None) -> None:
        """Read the titles of some items, or all, as the language model reads them now.

        Args:
            numbers: (N,) of items; None: all.
        """
        self.eval()
        items = self.items
        wanted = torch.arange(len(items.words), device=items.words.device) if numbers is None else numbers
        distinct, places = torch.unique(items.words[wanted], dim=0, return_inverse=True)  # equal titles get equal vectors to the bit
        lengths = (distinct >= 0).sum(1)
        read = torch.empty(len(distinct), items.vectors.shape[1], device=items.vectors.device)
        for part in torch.argsort(lengths, stable=True).split(max(1, _TOKENS // (int(lengths.max()) + 2))):
            read[part] = self.read_titles(distinct[part])
        items.vectors[wanted] = read[places]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of what was bought next against the drawn items that its row has not bought."""
        asked = batch.targets > COLD
        expected, targets = self.expectations(batch)[asked] * self.scale, batch.targets[asked]
        drawn = self._draw(batch.targets[:, -1].contiguous()).flatten()
        distinct, places = torch.unique(torch.cat([targets, drawn]), return_inverse=True)
        logits = expected @ self.read_titles(self.items.words[distinct]).T
        is_drawn = torch.zeros(len(distinct), dtype=torch.bool, device=drawn.device).index_fill_(0, places[len(targets) :], True)
        own = places[: len(targets), None]
        bought = (batch.whole()[:, :, None] == distinct).any(1)
        allowed = (is_drawn & ~bought)[asked.nonzero()[:, 0]].scatter_(1, own, True)
        return functional.cross_entropy(logits.masked_fill(~allowed, -torch.inf), own[:, 0])

    def _draw(self, targets: torch.Tensor) -> torch.Tensor:
        """Return (B, negatives) items of the domains that B targets are from."""
        edges = self.edges if self.edges is not None else torch.tensor([1, len(self.items.words)])
        edges = edges.to(targets.device)
        shop = torch.searchsorted(edges, targets, right=True) - 1
        first, size = edges[shop], edges[shop + 1] - edges[shop]
        return first[:, None] + (torch.rand(len(targets), self.n_negatives, device=targets.device) * size[:, None]).long()


class LlmRecRanker(LanguageRanker, SequentialRanker):
    """Scores an item by the product of its title's embedding with that of the user's last titles, both by one language model.

    An embedding is the last hidden state at the end token. The LoRA is taught on the purchases of all domains mixed; items
    never bought can be scored as well as any other.

    Source: Z. Tang et al., One Model for All: Large Language Models are Domain-Agnostic Recommendation Systems, arXiv 2310.14304, 2023.
    Departures: titles are joined by the model's end token, as in recmerge's `open` prompts, and not by "; ": a causal model then says after
    each title what is expected, so that a row teaches as many questions as it has purchases. The negatives of one row, drawn from its own
    domain, serve the whole batch, so 2 of each of 32 rows are more to a question than the paper's 10. Products are divided by the square
    root of the width.

    Args:
        settings: None: the defaults.
        seed: Of the LoRA's first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "llm_rec"
    settings_class = LlmRecSettings
    learns_together = True
    settings: LlmRecSettings
    _lm: TunedLm | None = None  # one for all domains

    def build(self, sizes: Mapping[str, int]) -> LlmRecModel:
        """Make an untrained model, or one more around the language model that there is.

        Args:
            sizes: `n_items` and `longest`.

        Returns:
            The model.

        Raises:
            ConfigError: The longest text is longer than the base can read.
        """
        if self._lm is None:
            self._lm = TunedLm(self.settings, "open", self.seed)
        encoder = self._lm.held.encoder
        longest = len(encoder.start_ids) + self.settings.max_history * (sizes["longest"] + 1)
        if longest > encoder.settings.max_length:
            raise ConfigError(
                f"{self.settings.max_history} titles of {sizes['longest']} tokens make {longest} tokens, and base '{self.settings.base}' reads "
                f"{encoder.settings.max_length}",
                fix="lower ranker.max_history or ranker.max_title_tokens",
            )
        return LlmRecModel(sizes, self._lm, self.settings)

    def recall(self, card: Mapping[str, Any]) -> None:
        """Refuse another base, and forget the language model of before."""
        super().recall(card)
        self._lm = None

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the number of items and the tokens of the longest title."""
        return {"n_items": len(purchases.items), "longest": self._words([purchases]).shape[1]}

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Give the model the titles' tokens."""
        model.items.words.copy_(self._words([purchases]))  # type: ignore[union-attr, operator]

    def teach_together(self, shops: Sequence[Purchases]) -> dict[str, torch.Tensor]:
        """Teach the LoRA on the purchases of all domains; the domains' validation users together say when to stop."""
        self._lm = TunedLm(self.settings, "open", self.seed)
        words, mixed = self._words(shops), mix(shops)
        model = self.build({"n_items": len(words) - 1, "longest": words.shape[1]})
        device = device_of(model)
        model.to(device).items.words.copy_(words)
        model.edges = torch.from_numpy(mixed.edges).to(device)

        def judge(asked: Asked) -> float:
            in_all = self.settings.eval_items == "catalogue"
            model.refresh(None if in_all else torch.from_numpy(np.unique(asked.candidates)).to(device))
            return validation_ndcg(model, asked, self.settings.max_history, whole_catalogue=in_all)

        rows = Rows(mixed, self.settings.max_history, every_place=True, device=device)
        asked = mixed_questions(shops, self.settings.eval_users)
        deadline = self.settings.deadline(len(shops))  # `minutes` are of each domain
        outcome = train(model, rows, self.settings.schedule(), asked, seed=self.seed, deadline=deadline, judge=judge, say=self.say)
        self.facts["together"] = outcome.facts()
        return {f"encoder.{name}": weights for name, weights in model.encoder.state_dict().items()}

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Read the domain's titles; there is nothing more to teach."""
        assert isinstance(model, LlmRecModel)
        model.refresh()
        return {}

    def _words(self, shops: Sequence[Purchases]) -> torch.Tensor:
        assert self._lm is not None
        return title_words(self._lm.held.encoder, [title for shop in shops for title in titles_of(shop)])
