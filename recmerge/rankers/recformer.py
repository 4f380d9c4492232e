"""The ranker that reads purchases as the words of their attributes: RecFormer."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.lm.base import find, load_tokenizer
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.rankers.sequential.batches import Batch, read_alike
from recmerge.rankers.sequential.losses import full_softmax, info_nce
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases
from recmerge.rankers.sequential.together import TogetherRanker, TogetherSettings
from recmerge.rankers.sequential.word_encoder import WordEncoder, WordItems
from recmerge.rankers.sequential.words import attribute_words, cut_somewhere, hide

_TOKENS = 8192  # of items that are read in one pass


class RecFormerSettings(TogetherSettings):
    """What is read, by how large a transformer, and how it is taught."""

    tokenizer: str = Field("nano", description="of the shipped base, of a model's folder or a Hugging Face id")
    attribute_tokens: int = Field(16, ge=1, description="of a title, a brand or a category at most")
    max_tokens: int = Field(256, ge=2, description="of a user's purchases at most; the newest come first")
    max_history: int = Field(20, ge=1, description="purchases read at most, the newest")
    window: int = Field(64, ge=2, description="words that a word sees, half of them before it and half behind; the first place sees all and is seen by all")
    width: int = Field(128, ge=1, description="of a word's vector and of an item's")
    heads: int = Field(4, ge=1, description="of each block; must divide the width")
    inner: int = Field(512, ge=1, description="width inside the feed-forward layers")
    dropout: float = Field(0.1, ge=0, lt=1)
    temperature: float = Field(0.05, gt=0, description="cosines are divided by it")
    masked: float = Field(0.15, ge=0, lt=1, description="share of words to be guessed in the first stage")
    guessing: float = Field(0.1, ge=0, description="weight of that loss")
    pretraining: float = Field(0.6, ge=0, lt=1, description="share of the minutes that all domains of a set, or the one, spend in the first stage")
    first_stage: float = Field(0.7, gt=0, lt=1, description="share of a domain's own minutes in which items are read anew before each epoch, and not kept")
    pretraining_rate: float = Field(1e-3, gt=0, description="learning rate of the first stage")
    learning_rate: float = Field(2e-4, gt=0, description="of Adam, in the stages after it; the paper's 5e-5 is for weights that have read much")
    batch_size: int = Field(32, ge=1, description="rows of a step")
    epochs: int = Field(50, ge=1, description="at most, of each stage of a domain's own; the first stage has `pretraining` times as many")
    epoch_steps: int | None = Field(200, ge=1, description="steps of an epoch at most; null: as many as pass over every row")
    patience: int = Field(5, ge=1, description="evaluations in a row without a better NDCG@10 of validation users that end a stage")
    eval_users: int = Field(1000, ge=1, description="validation users that an evaluation asks")


class RecFormerModel(SequentialModel):
    """One transformer that reads a user's purchases, and an item by itself.

    Args:
        sizes: `n_items`, `longest` and `n_words`.
        settings: The ranker's.
    """

    fewest = None  # a part would read the whole catalogue once more

    items: WordItems
    encoder: WordEncoder

    def __init__(self, sizes: Mapping[str, int], settings: RecFormerSettings) -> None:
        s = settings
        like = {"width": s.width, "blocks": s.blocks, "heads": s.heads, "inner": s.inner}
        encoder = WordEncoder(sizes["n_words"], s.max_tokens, s.max_history, s.window, **like, dropout=s.dropout)
        super().__init__(WordItems(sizes["n_items"], sizes["longest"], s.width), encoder)
        self.settings = settings
        self.guess = nn.Sequential(nn.Linear(settings.width, settings.width), nn.GELU(), nn.LayerNorm(settings.width))
        self.is_fresh = False  # items have been read since something was learnt

    def lay_out(self, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Put the words of purchases side by side, the newest purchase first.

        Args:
            items: (B, T) numbers, the newest last; 0 wherever there is none.

        Returns:
            (B, L) words, -1 at the ends; their kinds; and of which purchase they are, the newest being 1.
        """
        newest = items.flip(1)
        words = self.items.words[newest]
        places = (newest > COLD).cumsum(1)[..., None].expand_as(words).flatten(1)
        flat, kinds = words.flatten(1), self.items.kinds[newest].flatten(1)
        longest = min(max(int((flat >= 0).sum(1).max()), 1), self.settings.max_tokens - 1)
        order = torch.argsort((flat < 0).int(), dim=1, stable=True)[:, :longest]
        return flat.gather(1, order).long(), kinds.gather(1, order).long(), places.gather(1, order)

    def read_words(self, words: torch.Tensor, kinds: torch.Tensor, places: torch.Tensor, shown: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, L + 1, D); see `lay_out`, and what is shown in place of the words where that is given."""
        encoder = self.encoder
        vectors = encoder.words((words if shown is None else shown).clamp(min=0)) + encoder.kinds(kinds)
        return encoder.attend(vectors, words >= 0, places)

    def expectations(self, batch: Batch) -> torch.Tensor:
        """Return (B, 1, D) of length 1: what all purchases say together."""
        return functional.normalize(self.read_apart(*self.lay_out(batch.items))[0], dim=-1)[:, None]

    def read_apart(
        self, words: torch.Tensor, kinds: torch.Tensor, places: torch.Tensor, shown: torch.Tensor | None = None, hidden: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read rows of like many words together.

        Args:
            words: (B, L); this and the next two as `lay_out` gives them.
            kinds: (B, L).
            places: (B, L).
            shown: (B, L) in place of the words; None: the words.
            hidden: (B, L) True at the words to be guessed; None: none are.

        Returns:
            (B, D) what each row says together; (N, D) states of the hidden words; (N,) these words.
        """
        states, guessed = [words.new_empty(0, self.settings.width, dtype=torch.float32)], [words[:0, 0]]

        def read(rows: torch.Tensor, longest: int) -> torch.Tensor:
            cut = (rows, slice(0, longest))
            found = self.read_words(words[cut], kinds[cut], places[cut], None if shown is None else shown[cut])
            if hidden is not None:
                states.append(found[:, 1:][hidden[cut]])
                guessed.append(words[cut][hidden[cut]])
            return found[:, 0]

        firsts = read_alike((words >= 0).sum(1), read)
        return firsts, torch.cat(states), torch.cat(guessed)

    def scored(self) -> torch.Tensor:
        """Return (I + 1, D) of length 1."""
        return functional.normalize(self.items.table(), dim=-1)

    @torch.no_grad()
    def refresh(self) -> None:
        """Read all items as the encoder reads them now, if it has learnt since it last did; the cold one has no words."""
        if self.is_fresh:
            return
        self.is_fresh = True
        was_training = self.training
        self.eval()
        items = self.items
        distinct, same = torch.unique(torch.cat([items.words, items.kinds.int()], 1), dim=0, return_inverse=True)  # equal items get equal vectors to the bit
        words, kinds = (part.long() for part in distinct.chunk(2, 1))
        lengths = (words >= 0).sum(1).clamp(max=self.settings.max_tokens - 1)
        read = torch.empty(len(distinct), items.vectors.shape[1], device=words.device)
        for part in torch.argsort(lengths, stable=True).split(max(1, _TOKENS // words.shape[1])):
            longest = max(int(lengths[part].max()), 1)
            cut = words[part, :longest]
            read[part] = self.read_words(cut, kinds[part, :longest], (cut >= 0).long())[:, 0]
        items.vectors.copy_(read[same])
        self.train(was_training)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the catalogue, of one purchase of each row, against items as they were last read."""
        self.is_fresh = False
        items, targets = cut_somewhere(batch)
        said = self.expectations(replace(batch, items=items))[:, 0]
        return full_softmax(said / self.settings.temperature, self.scored(), targets)

    def transfer_loss(self, batch: Batch) -> torch.Tensor:
        """Return the loss of the first stage: each row is to find its next purchase among those of the others, and words that are hidden."""
        s = self.settings
        items, targets = cut_somewhere(batch)
        words, kinds, places = self.lay_out(items)
        hidden = (words >= 0) & (torch.rand(words.shape, device=words.device) < s.masked)
        shown = hide(words, hidden, len(self.encoder.words.weight) - 1)
        said, states, guessed = self.read_apart(words, kinds, places, shown, hidden)
        found, _, _ = self.read_apart(*self.lay_out(targets[:, None]))
        loss = info_nce(said, found, s.temperature, same=targets)
        if len(guessed):
            logits = self.guess(states) @ self.encoder.words.weight[:-1].T
            loss = loss + s.guessing * functional.cross_entropy(logits, guessed)
        return loss


class RecFormerRanker(TogetherRanker):
    """Scores an item by the cosine of what a transformer makes of its title, brand and category with what it makes of those of the purchases.

    It is taught in three stages: on all domains together to find each next item among others and to guess hidden words; then each domain to
    find the next item in the catalogue, whose items are read anew before each epoch; then the same with the items as they were at the best.

    Source: J. Li, M. Wang, J. Li, J. Fu, X. Shen, J. Shang and J. McAuley, Text Is All You Need: Learning Language Representations for Sequential
    Recommendation, KDD 2023.
    Departures: the transformer is small and begins with drawn weights, not Longformer's; its window is a mask. One domain alone has the
    first stage too. There purchases are read once, with words hidden, for both losses; words are hidden in purchases alone, token by token,
    not in the item that is to be found. The first place has no projections of its own, and what guesses words no bias. Values are cut,
    their names not. The first stage asks any purchase of a row, not one of its second half; an epoch asks one of each row, drawn anew.
    Rates are constant; both stages of a domain's own have the same patience, and the better of them, or the state before them, is kept.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, hidden words and the order of batches.
    """

    name: ClassVar[str] = "recformer"
    settings_class = RecFormerSettings
    settings: RecFormerSettings
    own = ("items.",)
    needs_several = False

    read: dict[str, tuple[torch.Tensor, torch.Tensor]]  # words and kinds of each domain's items, between the beginning of a fit and its domain's turn
    n_words: int

    def prepare(self, shops: Sequence[Purchases]) -> None:
        """Turn the items of all domains into words."""
        encoder = Encoder(load_tokenizer(find(self.settings.tokenizer)), PromptSettings(max_title_tokens=self.settings.attribute_tokens))
        self.n_words = len(encoder.tokenizer)
        self.read = {shop.domain.name: attribute_words(encoder, shop) for shop in shops}

    def build(self, sizes: Mapping[str, int]) -> RecFormerModel:
        """Make an untrained model."""
        return RecFormerModel(sizes, self.settings)

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the number of items, the words of the longest, and those of the vocabulary."""
        return {"n_items": len(purchases.items), "longest": self.read[purchases.domain.name][0].shape[1], "n_words": self.n_words}

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Give the model the items' words."""
        assert isinstance(model, RecFormerModel)
        words, kinds = self.read.pop(purchases.domain.name)
        model.items.words.copy_(words)
        model.items.kinds.copy_(kinds)

    def united_model(self, shops: Sequence[Purchases]) -> RecFormerModel:
        """Make the untrained model of all domains."""
        parts = [self.read[shop.domain.name] for shop in shops]
        longest = max(words.shape[1] for words, _ in parts)
        model = self.build({"n_items": sum(len(shop.items) for shop in shops), "longest": longest, "n_words": self.n_words})
        at = 1
        for words, kinds in parts:
            rows = slice(at, at + len(words) - 1)
            model.items.words[rows, : words.shape[1]] = words[1:]
            model.items.kinds[rows, : words.shape[1]] = kinds[1:]
            at = rows.stop
        return model

    def united_rate(self) -> float:
        """Return the learning rate of the first stage, which begins with drawn weights."""
        return self.settings.pretraining_rate

    def own_epochs(self) -> int:
        """Return the epochs of each of the two stages of a domain's own."""
        return int(self.settings.epochs)

    def united_loss(self, model: RecFormerModel) -> Any:
        """Return the model's own loss of the first stage."""
        return model.transfer_loss

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Train a domain's model with items read anew before each epoch, and then with those of the best."""
        assert isinstance(model, RecFormerModel)
        end = self.end_of_stage()
        first = self.refined(model, purchases, self.settings.part_way(self.settings.first_stage, end), before_epoch=model.refresh)
        if not first.epochs:
            model.refresh()
        kept = copy.deepcopy(model.state_dict())
        second = self.refined(model, purchases, end, judge_first=False)  # the first is what it is compared with
        is_better = (second.best or 0.0) >= (first.best or 0.0)
        if not is_better:
            model.load_state_dict(kept)
        return {**second.facts(), "first_stage": first.facts(), "kept": "second stage" if is_better else "first stage"}
