"""The language model itself as a ranker: candidates by the likelihood of their titles."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recmerge.data.dataset import Example
from recmerge.data.prompts import SEPARATOR
from recmerge.errors import DataError
from recmerge.lm.backend import Backend, TransformersBackend
from recmerge.lm.cores import one_core_each
from recmerge.lm.encoding import Encoder
from recmerge.lm.parsing import Parsed, chosen_answer, parse_answer
from recmerge.lm.title_tree import Question
from recmerge.rankers.normalization import Likelihoods, Normalization

_TOKENS = 4096  # of titles in one pass where there are more than a user's candidates


@dataclass
class LlmCounts:
    """What happened to the prompts.

    Args:
        prompts: Prompts made.
        trimmed: Of these, prompts that lost oldest history to the limits.
    """

    prompts: int = 0
    trimmed: int = 0


class LlmRanker:
    """Ranks candidates with a causal language model, with or without an adapter.

    Items without a title are left out of histories; as candidates they are asked about without one.

    Args:
        model: A Hugging Face model, in eval mode; None where there is a backend.
        encoder: Its tokenizer and prompt settings.
        titles: Item id to title.
        batch_size: Users per forward pass.
        backend: What asks the model; None: transformers does.
    """

    name = "llm"

    def __init__(self, model: Any, encoder: Encoder, titles: Mapping[str, str], batch_size: int = 16, backend: Backend | None = None) -> None:
        self.model = model
        self.encoder = encoder
        self.titles = titles
        self.batch_size = batch_size
        self.normalization: Normalization = "sum"  # how likelihoods become scores
        self.scorer: Any = TransformersBackend(model, encoder) if backend is None else backend
        self.counts = LlmCounts()
        self._priors: dict[tuple[int, ...], float] = {}
        encoder.learn(list(titles.values()))

    def score(self, examples: Sequence[Example]) -> np.ndarray:
        """Return scores (users, candidates); see `score_batches`."""
        found = {i: row for batch, scores in self.score_batches(examples) for i, row in zip(batch, scores, strict=True)}
        return np.stack([found[i] for i in range(len(examples))]) if found else np.empty((0, 0))

    def score_batches(self, examples: Sequence[Example]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Score users batch by batch.

        Args:
            examples: Whom to rank for; all with the same number of candidates.

        Yields:
            Indices into `examples` and their scores (batch, candidates): the log-likelihood of each title's tokens and end token given the prompt,
            normalized as this ranker does; in the index style the log-probability of each label among the labels.
        """
        for chosen, found in self.likelihoods(examples, priors=self.normalization == "pmi"):
            yield chosen, found.normalized(self.normalization)

    def likelihoods(self, examples: Sequence[Example], *, priors: bool) -> Iterator[tuple[list[int], Likelihoods]]:
        """Yield what the model says of candidates batch by batch; users of like prompt length share a batch.

        Args:
            examples: Whom to rank for; all with the same number of candidates.
            priors: Whether to ask also what each title has without a history; asked once per title.

        Yields:
            Indices into `examples`, and of these users what the model says.

        Raises:
            DataError: A prompt does not fit, or one without a history is not possible.
        """
        questions = [self._question(e) for e in examples]
        order = sorted(range(len(examples)), key=lambda i: (len(questions[i].prompt), i))
        if order:
            self.scorer.prepare(questions[order[-1]])  # the longest: windows show there, if anywhere
        if priors:
            self._learn_priors(sorted({answer for question in questions for answer in question.answers}))
        cores = torch.get_num_threads() if self.scorer.device.type == "cpu" else 0
        size = min(self.batch_size, math.ceil(len(order) / (4 * cores))) if cores and order else self.batch_size  # some batches for each core
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with one_core_each(self.scorer.device) as side_by_side:
            scored = side_by_side(lambda chosen: np.stack(self.scorer.score([questions[i] for i in chosen])), batches)
            for chosen, sums in zip(batches, scored, strict=True):
                answers = [questions[i].answers for i in chosen]
                if self.encoder.settings.style == "index":
                    sums = np.stack([_among(row, named) for row, named in zip(sums, answers, strict=True)])
                n_tokens = np.array([[float(len(a)) for a in row] for row in answers])
                yield chosen, Likelihoods(sums, n_tokens, np.array([[self._priors[a] for a in row] for row in answers]) if priors else None)

    def score_all(self, examples: Sequence[Example], items: Sequence[str]) -> np.ndarray:
        """Score the same items for every user, exactly as `score` would; only for prompts that do not name candidates.

        Titles go through the model in sorted order, some thousand tokens at a time, so that what they begin with alike is computed once.

        Args:
            examples: B users, whose own candidates are not looked at.
            items: I item ids.

        Returns:
            (B, I) scores, normalized as this ranker does.
        """
        answers = [self.encoder.answer(self._title(item)) for item in items]
        distinct = sorted(set(answers))
        longest = max(map(len, distinct), default=0)
        prompts = [self._prompt_of(example, [], longest) for example in examples]
        found = self._sums(prompts, distinct)
        if self.normalization == "pmi":
            self._learn_priors(distinct)
        places = {answer: place for place, answer in enumerate(distinct)}
        sums = found[:, [places[answer] for answer in answers]]
        n_tokens = np.array([[float(len(answer)) for answer in answers]])
        priors = np.array([[self._priors[answer] for answer in answers]]) if self.normalization == "pmi" else None
        return Likelihoods(sums, n_tokens, priors).normalized(self.normalization)

    def _sums(self, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]]) -> np.ndarray:
        """Return the log-likelihood (B, A) of each of many answers, which are best sorted, after each prompt."""
        ends = np.cumsum([len(answer) for answer in answers])
        parts = [tuple(answers[at] for at in part) for part in np.split(np.arange(len(answers)), np.flatnonzero(np.diff(ends // _TOKENS)) + 1)]
        tasks = [Question(prompt, part) for prompt in prompts for part in parts if part]
        if not tasks:
            return np.empty((len(prompts), len(answers)))
        self.scorer.prepare(max(tasks, key=lambda task: len(task.prompt)))
        with one_core_each(self.scorer.device) as side_by_side:
            found = np.concatenate(list(side_by_side(lambda task: self.scorer.score([task])[0], tasks)))
        return found.reshape(len(prompts), len(answers))

    def _learn_priors(self, answers: Sequence[tuple[int, ...]]) -> None:
        """Score titles, those that begin alike together, after a prompt without history and candidates."""
        new = [answer for answer in answers if answer not in self._priors]
        prompt = self.encoder.prompt([], [], reserve=max(map(len, new), default=0))
        if prompt is None:
            raise DataError(
                "a title's likelihood without a history cannot be had: this tokenizer has no start token, so an open prompt without a history is empty",
                fix="use --set normalize=sum or mean",
            )
        self._priors.update(zip(new, self._sums([prompt.ids], new)[0].tolist(), strict=True))

    def generate_batches(
        self, examples: Sequence[Example], max_new_tokens: int, beams: int | None = None
    ) -> Iterator[tuple[list[int], list[str], list[Parsed]]]:
        """Let the model write answers and read them.

        Args:
            examples: Whom to rank for.
            max_new_tokens: Tokens of an answer at most, where it is free.
            beams: Of a search that can write only candidates, in the open and listwise styles one title a beam; None: free and greedy.

        Yields:
            Indices into `examples`, the texts, and what could be read in them.
        """
        prompts = [self._prompt(e) for e in examples]
        order = sorted(range(len(examples)), key=lambda i: (len(prompts[i]), i))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            asked, listed = [prompts[i] for i in chosen], [[self._title(c) for c in examples[i].candidates] for i in chosen]
            if beams is None:
                texts = self.scorer.write(asked, max_new_tokens)
                yield chosen, texts, [parse_answer(text, titles) for text, titles in zip(texts, listed, strict=True)]
            else:
                named = self.scorer.choose(asked, listed, beams)
                texts = [SEPARATOR.join(alike[0] for alike in places) for places in named]
                yield chosen, texts, [chosen_answer(places, titles) for places, titles in zip(named, listed, strict=True)]

    def _question(self, example: Example) -> Question:
        return Question(self._prompt(example), self.encoder.answers([self._title(c) for c in example.candidates]))

    def _title(self, item: str) -> str:
        return self.titles.get(item, "")

    def _prompt(self, example: Example) -> tuple[int, ...]:
        titles = [self._title(c) for c in example.candidates]
        return self._prompt_of(example, titles, max(map(len, self.encoder.answers(titles))))

    def _prompt_of(self, example: Example, candidates: Sequence[str], longest: int) -> tuple[int, ...]:
        prompt = self.encoder.prompt([self.titles[i] for i in example.history if i in self.titles], candidates, reserve=longest)
        if prompt is None:
            raise DataError(
                f"the prompt of user {example.user_id} does not fit into max_length {self.encoder.settings.max_length} tokens even without a history",
                fix="raise prompt.max_length or set prompt.max_title_tokens",
            )
        self.counts.prompts += 1
        self.counts.trimmed += prompt.n_dropped > 0
        return prompt.ids


def _among(scores: np.ndarray, answers: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return log-probabilities (C,) among the different answers alone: a softmax of their logits, whatever the rest of the vocabulary."""
    distinct = np.array(list(dict(zip(answers, scores.tolist(), strict=True)).values()))
    highest = distinct.max()
    found: np.ndarray = scores - (highest + np.log(np.exp(distinct - highest).sum()))
    return found
