"""The ranker that asks a language model of each candidate whether it is bought next: TALLRec."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.data.dataset import Example
from recmerge.evaluation.metrics import expected_metric
from recmerge.lm.cores import one_core_each
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question
from recmerge.lm.yes_no import YesNoEncoder
from recmerge.rankers.per_domain import Numbers
from recmerge.rankers.protocol import Scores, empty_scores
from recmerge.rankers.sequential.batches import Batch, newest_histories
from recmerge.rankers.sequential.language import LanguageRanker, LanguageSettings, TunedLm, title_words
from recmerge.rankers.sequential.losses import draw_negatives
from recmerge.rankers.sequential.purchases import COLD, Asked, Purchases, read_questions
from recmerge.rankers.sequential.ranker import device_of
from recmerge.rankers.sequential.text import titles_of

_AT_ONCE = 4  # users asked about in one task of a core
_TRIED = 30  # candidates of the question by which the way of asking is chosen


class TallRecSettings(LanguageSettings):
    """The language model, and what it is taught by."""

    dropout: float = Field(0.05, ge=0, lt=1, description="on the LoRA's input")
    target_modules: str | list[str] = Field(["q_proj", "v_proj"], description="all-linear, or module names")
    negatives: int = Field(4, ge=1, description="items drawn for each row, of which the answer is No")
    epochs: int = Field(20, ge=1, description="at most")
    batch_size: int = Field(16, ge=1, description="rows of a step")
    learning_rate: float = Field(5e-3, gt=0, description="of Adam; for a base of billions of weights 1e-4, the paper's")
    eval_users: int = Field(300, ge=1, description="validation users that an evaluation asks")
    eval_items: Literal["candidates"] = Field("candidates", description="what they rank; the whole catalogue would be a question for each item")


class TallRecModel(nn.Module):
    """A language model that says Yes or No.

    Args:
        sizes: `n_items` and `longest`.
        lm: The language model.
        settings: The ranker's.
    """

    every_place = False
    fewest = None  # it packs its rows itself
    words: torch.Tensor

    def __init__(self, sizes: Mapping[str, int], lm: TunedLm, settings: TallRecSettings) -> None:
        super().__init__()
        self.lm = lm
        self.settings = settings
        self.register_buffer("words", torch.full((sizes["n_items"] + 1, sizes["longest"]), -1, dtype=torch.int32))
        self.asks = YesNoEncoder(lm.held.encoder)
        self.scorer = Scorer(lm.held.model, lm.held.encoder.end_id)
        self._titles: dict[int, tuple[int, ...]] = {}

    def title(self, number: int) -> tuple[int, ...]:
        """Return the tokens of an item's title; the cold item has none."""
        if number not in self._titles:
            self._titles[number] = tuple(t for t in self.words[number].tolist() if t >= 0)
        return self._titles[number]

    def question(self, history: Sequence[int], candidates: Sequence[int]) -> Question:
        """Ask of each of C candidates whether it is bought next.

        Args:
            history: Numbers of items, oldest first.
            candidates: Numbers of items.

        Returns:
            The prompt, and behind it each candidate's title, the question's end and Yes.
        """
        asks = self.asks
        endings = tuple((*self.title(number), *asks.ending, asks.answers[0]) for number in candidates)
        return Question(asks.question([self.title(number) for number in history], max(map(len, endings))), endings)

    def logits(self, questions: Sequence[Question]) -> torch.Tensor:
        """Return (N, V) of the tokens that the N answers to all questions begin with."""
        return self.lm.logits(torch.cat(self.scorer.before_last(questions)))

    def margins(self, questions: Sequence[Question]) -> list[torch.Tensor]:
        """Return, for each question, by how much (C,) the logit of Yes exceeds that of No."""
        yes, no = self.asks.answers
        logits = self.logits(questions)
        return list((logits[:, yes] - logits[:, no]).split([len(question.answers) for question in questions]))

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of Yes for what was bought next and of No for the drawn items."""
        targets = batch.targets[:, -1:]
        drawn = draw_negatives(len(self.words) - 1, self.settings.negatives, batch.whole())[:, -1]
        asked = torch.cat([targets, drawn], 1)
        rows = zip(batch.items.tolist(), asked.tolist(), strict=True)
        questions = [self.question([n for n in history if n > COLD], [n for n in candidates if n > COLD]) for history, candidates in rows]
        yes, no = self.asks.answers
        is_bought = torch.zeros_like(asked, dtype=torch.bool)
        is_bought[:, 0] = True
        right = torch.where(is_bought, yes, no)[asked > COLD]
        return functional.cross_entropy(self.logits(questions), right)

    @torch.no_grad()
    def prepare(self) -> None:
        """Let the scorer find out, before dropout makes answers differ, how this language model can be asked."""
        self.eval()
        n = len(self.words) - 1
        self.scorer.prepare(self.question(range(1, min(n, self.settings.max_history) + 1), range(1, min(n, _TRIED) + 1) if n else [COLD]))


class TallRecRanker(LanguageRanker):
    """Scores an item by how much likelier a language model says Yes than No when asked whether it is bought next.

    All candidates of a user are asked about in one pass that reads the user's titles once. A user without a known purchase
    scores 0 throughout; items outside the catalogue are asked about without a title.

    Source: K. Bao, J. Zhang, Y. Zhang, W. Wang, F. Feng and X. He, TALLRec: An Effective and Efficient Tuning Framework to Align Large Language
    Model with Recommendation, RecSys 2023.
    Departures: a question is a purchase and items drawn from the catalogue that what is read does not hold, since there are no dislikes; no
    tuning on general instructions goes before it. A base that was made for titles without words (its card says so) is asked without words.
    The loss is that of the answer's first token alone, by a loop over packed questions and not by a text trainer, so that a row of several
    questions reads the purchases once. NDCG of validation users ends training, not AUC. Each domain of a set has a LoRA, and a copy of the
    base in memory.

    Args:
        settings: None: the defaults.
        seed: Of the LoRA's first weights, dropout, negatives and the order of batches.
    """

    name: ClassVar[str] = "tallrec"
    settings_class = TallRecSettings
    settings: TallRecSettings
    _next: TunedLm | None = None  # loaded to measure a domain, and then its model's own

    def build(self, sizes: Mapping[str, int]) -> Any:
        """Make an untrained model."""
        lm, self._next = self._next or TunedLm(self.settings, None, self.seed), None
        return TallRecModel(sizes, lm, self.settings)

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the number of items and the tokens of the longest title."""
        self._next = TunedLm(self.settings, None, self.seed)
        return {"n_items": len(purchases.items), "longest": title_words(self._next.held.encoder, titles_of(purchases)).shape[1]}

    def furnish(self, model: Any, purchases: Purchases) -> None:
        """Give the model the titles' tokens."""
        model.words.copy_(title_words(model.lm.held.encoder, titles_of(purchases)))

    def teach(self, model: Any, purchases: Purchases) -> dict[str, Any]:
        """Train the LoRA."""
        model.prepare()
        return self.trained(model, purchases, loss=model.loss, judge=lambda asked: self._ndcg(model, asked)).facts()

    def _ndcg(self, model: TallRecModel, asked: Asked) -> float:
        model.eval()
        scores = self._scored(model, asked)
        own = np.take_along_axis(scores, (asked.candidates == asked.targets[:, None]).argmax(1)[:, None], 1)
        return float(np.mean(expected_metric("ndcg@10", (scores > own).sum(1), (scores == own).sum(1) - 1)))

    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) scores; domains that were not learnt score 0."""
        scores = empty_scores(examples)
        for name, fitted in self.fitted.items():
            rows = [row for row, example in enumerate(examples) if example.domain == name]
            if rows:
                scores[rows] = self._scored(fitted.model, read_questions([examples[row] for row in rows], fitted.items, fitted.users))
        return scores

    def _scored(self, model: TallRecModel, asked: Asked) -> Scores:
        """Return (B, C) margins; those with long histories are asked about together."""
        scores = np.zeros(asked.candidates.shape)
        starts, ends, order = newest_histories(asked, self.settings.max_history)
        device = device_of(model)
        size = self.settings.batch_size if device.type != "cpu" else min(self.settings.batch_size, _AT_ONCE)

        @torch.inference_mode()
        def judged(rows: Numbers) -> list[Scores]:
            lists = [np.unique(asked.candidates[row], return_inverse=True) for row in rows]  # whatever their order, asked in one
            questions = [model.question(asked.bought[starts[row] : ends[row]].tolist(), found.tolist()) for row, (found, _) in zip(rows, lists, strict=True)]
            return [m.double().cpu().numpy()[places] for m, (_, places) in zip(model.margins(questions), lists, strict=True)]

        batches = [order[at : at + size] for at in range(0, len(order), size)]
        with one_core_each(device) as side_by_side:
            for rows, found in zip(batches, side_by_side(judged, batches), strict=True):
                scores[rows] = found
        return scores

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; see `TaughtRanker.load`."""
        super().load(folder)
        for fitted in self.fitted.values():
            fitted.model.prepare()  # type: ignore[operator]
