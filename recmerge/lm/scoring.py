"""Exact log-likelihoods of candidate titles, with each user's prompt computed once."""

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch

from recmerge.errors import ArtifactError, ConfigError, is_out_of_memory
from recmerge.lm.scoring_method import Method, quick_methods, rotates_by_length, tolerance, tried_answers
from recmerge.lm.title_tree import Question, TitleTree, Tokens
from recmerge.lm.token_logs import token_logs
from recmerge.lm.tree_attention import forget_tree_attention, use_tree_attention

_ANSWERS = 8  # scored in one batch where all their logits are needed
_BLOCK = 512  # tokens of titles that one square of attention takes


class Scorer:
    """Scores answers given prompts with one causal language model.

    `packed`: one forward pass over the prompt and the prefix tree of all answers; a tree mask lets a title's token see the
    prompt and what stands before it in its title, and its positions go on from the prompt's end. `reused`: the prompt once, then the answers as a batch
    behind its keys and values. `full`: every prompt with every answer as a sequence of its own, the definition that the others must equal. The first
    question is scored both ways; a model for which `packed` differs (state-space layers), or whose layers have a sliding window,
    is scored by `reused`, and where that fails too by `full`. A model that turns positions by other angles in long passes is scored by `full`,
    one answer in a pass and one pass at a time.

    Args:
        model: A causal language model or a peft model on one.
        pad_id: Any valid token id.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model = model
        self.causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.pad_id = pad_id
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.causal_lm.forward).parameters
        self._one_by_one = False  # on a CPU a sequence fills a core: batches, with their padding and full masks, would be work for nothing
        self._rotates = rotates_by_length(self.causal_lm)
        self._turn: Any = Lock() if self._rotates else nullcontext()  # angles are changed in place
        self.method: Method | None = None
        self.difference = 0.0  # between `full` and the method on the first question, in nats

    def score(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """Return each question's log-likelihoods.

        Args:
            questions: Scored in one batch.

        Returns:
            Per question an array (C,) in nats: the sum over the answer's tokens and end token. Equal answers get
            equal scores to the bit.
        """
        if not questions:
            return []
        self.prepare(questions[0])
        with self._turn:
            return self._by(self.method)(questions)

    def _by(self, method: Method | None) -> Callable[[Sequence[Question]], list[np.ndarray]]:
        return {"packed": self._packed, "reused": self._reused}.get(method or "full", self._full)

    def prepare(self, question: Question) -> None:
        """Choose the method by a first question, best the longest, unless that is done; ahead of scoring on several cores at once."""
        if self.method is None:
            self.method = self._choose(question)

    @torch.inference_mode()
    def _choose(self, question: Question) -> Method:
        places = tried_answers(question)
        sample = Question(question.prompt, tuple(question.answers[place] for place in places))
        want = self._defined(sample)

        def is_right(method: Method, asked: Question, at: Sequence[int]) -> bool:
            try:
                self.difference = float(np.abs(self._by(method)([asked])[0][at] - want).max())
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return False
            return self.difference <= tolerance(next(self.model.parameters()).dtype)

        for method in quick_methods(self.causal_lm):
            if method == "packed" and next(self.model.parameters()).device.type == "cpu" and use_tree_attention(self.causal_lm):
                self._one_by_one = True
                if is_right("full", sample, range(len(places))) and is_right(method, question, places):
                    return method
                self._one_by_one = False
                forget_tree_attention(self.causal_lm)
            if is_right(method, question, places):
                return method
        self.difference = 0.0
        return "full"

    def _defined(self, sample: Question) -> np.ndarray:
        try:
            return self._full([sample])[0]
        except IndexError as error:
            longest, rows = len(sample.prompt) + max(map(len, sample.answers)), len(self.model.get_input_embeddings().weight)
            if max(max(row, default=0) for row in (sample.prompt, *sample.answers)) >= rows:
                raise ArtifactError(f"the tokenizer knows more tokens than the {rows:,} of the base", fix="give the base its own tokenizer") from error
            raise ConfigError(
                f"a prompt and its answer take {longest} tokens, more than the base has positions for", fix="lower prompt.max_length or prompt.max_history"
            ) from error

    def _logits(self, rows: Sequence[Tokens], n_needed: int, **options: Any) -> torch.Tensor:
        """Return logits (B, n_needed, V) of the last places of sequences, padded at their ends."""
        longest, device = max(map(len, rows)), next(self.model.parameters()).device
        ids = torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in rows], device=device)
        keep = {"logits_to_keep": n_needed} if self._keeps_logits else {}  # rows of logits are long
        logits: torch.Tensor = self.model(input_ids=ids, **keep, **options).logits[:, -n_needed:]
        return logits

    @torch.inference_mode()
    def _full(self, questions: Sequence[Question]) -> list[np.ndarray]:
        def logits_of(question: Question, answers: Sequence[Tokens]) -> torch.Tensor:
            return self._logits([[*question.prompt, *a[:-1]] for a in answers], max(map(len, answers)), use_cache=False)

        size = 1 if self._rotates else _ANSWERS
        return [_in_groups(question, partial(logits_of, question), size) for question in questions]

    @torch.inference_mode()
    def _reused(self, questions: Sequence[Question]) -> list[np.ndarray]:
        def logits_of(first: Any, answers: Sequence[Tokens]) -> torch.Tensor:
            logits, longest = first.logits[:, -1:].expand(len(answers), -1, -1), max(map(len, answers)) - 1
            if not longest:
                return logits
            cache = copy.deepcopy(first.past_key_values)
            cache.batch_repeat_interleave(len(answers))
            return torch.cat([logits, self._logits([a[:-1] for a in answers], longest, past_key_values=cache, use_cache=True)], 1)

        device = next(self.model.parameters()).device
        keep = {"logits_to_keep": 1} if self._keeps_logits else {}
        firsts = (self.model(input_ids=torch.tensor([question.prompt], device=device), use_cache=True, **keep) for question in questions)
        return [_in_groups(question, partial(logits_of, first)) for question, first in zip(questions, firsts, strict=True)]

    def before_last(self, questions: Sequence[Question]) -> list[torch.Tensor]:
        """Return each question's last hidden states (C, D) from which the last token of its answers is predicted; gradients flow."""
        if not questions:
            return []
        self.prepare(questions[0])
        if self.method == "packed":
            trees = [TitleTree(q, self.pad_id, _BLOCK) for q in questions]
            return self._states(trees, [tree.ends for tree in trees])
        rows = [[*q.prompt, *answer[:-1]] for q in questions for answer in q.answers]
        longest, device = max(map(len, rows)), next(self.model.parameters()).device
        ids = torch.tensor([[*row, *[self.pad_id] * (longest - len(row))] for row in rows], device=device)
        hidden = self.causal_lm.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        lasts = torch.tensor([len(row) - 1 for row in rows], device=device)
        return list(hidden[torch.arange(len(rows), device=device), lasts].split([len(q.answers) for q in questions]))

    @torch.inference_mode()
    def _packed(self, questions: Sequence[Question]) -> list[np.ndarray]:
        trees = [TitleTree(q, self.pad_id, _BLOCK) for q in questions]
        return self._sums(torch.cat(self._states(trees, [tree.predicting for tree in trees])), trees)

    def _states(self, trees: Sequence[TitleTree], places: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Return each tree's last hidden states in some places."""
        if self._one_by_one and not torch.is_grad_enabled():  # in training a step's overhead weighs more than the padding
            states = [self._hidden([tree], self._bias([tree.allowed()]))[0] for tree in trees]
        else:
            longest = max(tree.length for tree in trees)
            allowed = np.broadcast_to(np.eye(longest, dtype=bool), (len(trees), longest, longest)).copy()  # padding sees itself
            for row, tree in zip(allowed, trees, strict=True):
                row[: tree.length, : tree.length] = tree.allowed_in_full()
            states = list(self._hidden(trees, self._bias(allowed)))
        return [hidden[torch.from_numpy(at).to(hidden.device)] for hidden, at in zip(states, places, strict=True)]

    def _bias(self, allowed: Sequence[np.ndarray] | np.ndarray) -> torch.Tensor:
        """Return the additive mask (B, 1, rows, L)."""
        parameter = next(self.model.parameters())
        seen = torch.from_numpy(np.asarray(allowed)).to(parameter.device)
        return torch.zeros(seen.shape, dtype=parameter.dtype, device=parameter.device).masked_fill_(~seen, torch.finfo(parameter.dtype).min)[:, None]

    def _hidden(self, trees: Sequence[TitleTree], bias: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (B, L, D)."""
        ids = np.full((len(trees), max(tree.length for tree in trees)), self.pad_id, dtype=np.int64)
        positions = np.zeros_like(ids)
        for row, tree in enumerate(trees):
            ids[row, : tree.length] = tree.ids
            positions[row, : tree.length] = tree.positions
        decoder, device = self.causal_lm.get_decoder(), bias.device
        inputs = {"input_ids": torch.from_numpy(ids).to(device), "position_ids": torch.from_numpy(positions).to(device)}
        hidden: torch.Tensor = decoder(**inputs, attention_mask=bias, use_cache=False).last_hidden_state
        return hidden

    def _sums(self, predicting: torch.Tensor, trees: Sequence[TitleTree]) -> list[np.ndarray]:
        """Return each question's scores from the last hidden states (N, D) of the places of all trees that predict."""
        begins = np.cumsum([0, *(len(tree.predicting) for tree in trees)])
        rows = torch.from_numpy(np.concatenate([begin + tree.rows for begin, tree in zip(begins, trees, strict=False)])).to(predicting.device)
        targets = torch.from_numpy(np.concatenate([tree.targets for tree in trees])).to(predicting.device)
        logs = token_logs(self.causal_lm, predicting, rows, targets).cpu().numpy()
        ends = np.cumsum([len(tree.targets) for tree in trees])
        return [tree.sums(part) for tree, part in zip(trees, np.split(logs, ends[:-1]), strict=True)]


def _in_groups(question: Question, logits_of: Callable[[list[tuple[int, ...]]], torch.Tensor], size: int = _ANSWERS) -> np.ndarray:
    """Score the distinct answers, those of like length together, a few at a time: all their logits (B, longest, V) are held at once."""
    ordered = sorted(dict.fromkeys(question.answers), key=len)
    scores = dict[tuple[int, ...], float]()
    for start in range(0, len(ordered), size):
        answers = ordered[start : start + size]
        scores |= _scores(answers, logits_of(answers))
    return np.array([scores[answer] for answer in question.answers])


def _scores(answers: Sequence[tuple[int, ...]], logits: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return each answer's score from the logits (B, longest, V) of its tokens."""
    found = {}
    for answer, rows in zip(answers, logits, strict=True):
        logs = torch.log_softmax(rows[: len(answer)].float(), -1)
        found[answer] = float(logs.gather(1, torch.tensor(answer, device=logs.device)[:, None]).double().sum())
    return found
