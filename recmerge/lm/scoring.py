"""Exact log-likelihoods of candidate titles, with each user's prompt computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody knows)

Tokens = Sequence[int]
Method = Literal["packed", "full"]
_LOGIT_BUDGET = {"cpu": 1 << 20, "cuda": 1 << 26}  # logits held at once, in elements: on a CPU what a core's cache holds
_CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}  # nats per answer


@dataclass(frozen=True)
class Question:
    """One user's prompt and the answers to be scored.

    Args:
        prompt: Token ids, at least one.
        answers: Token ids of each answer with its end token, at least one id each.
    """

    prompt: Tokens
    answers: tuple[tuple[int, ...], ...]


class Scorer:
    """Scores answers given prompts with one causal language model.

    `packed`: one forward pass over the prompt and all answers side by side; a tree mask lets an answer see the
    prompt and itself only, and its positions go on from the prompt's end. `full`: every prompt with every answer as
    a sequence of its own, the definition that `packed` must equal. The first question is scored both ways; a model
    for which they differ (state-space layers), or whose layers have a sliding window, is scored by `full`.

    Args:
        model: A causal language model or a peft model on one.
        pad_id: Any valid token id.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model = model
        self.causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.pad_id = pad_id
        self.method: Method | None = None
        self.difference = 0.0  # between the two methods on the first question, in nats

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
        one = self._packed if self.method == "packed" else self._full
        return one(questions)

    def prepare(self, question: Question) -> None:
        """Choose the method by a first question, unless that is done; ahead of scoring on several cores at once."""
        if self.method is None:
            self.method = self._choose(question)

    @torch.inference_mode()
    def _choose(self, question: Question) -> Method:
        if _has_window(self.causal_lm.config):  # a short first question would not show it
            self.difference = float("inf")
            return "full"
        sample = Question(question.prompt, question.answers[:4])
        want = self._full([sample])[0]
        try:
            got = self._packed([sample])[0]
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
            self.difference = float("inf")
            return "full"
        self.difference = float(np.abs(got - want).max())
        tolerance = _CHECK_TOLERANCE.get(next(self.model.parameters()).dtype, 1e-3)
        return "packed" if self.difference <= tolerance else "full"

    @torch.inference_mode()
    def _full(self, questions: Sequence[Question]) -> list[np.ndarray]:
        device = next(self.model.parameters()).device
        results = []
        for question in questions:
            distinct = list(dict.fromkeys(question.answers))
            sequences = [[*question.prompt, *a] for a in distinct]
            longest = max(map(len, sequences))
            ids = torch.tensor([s + [self.pad_id] * (longest - len(s)) for s in sequences], device=device)
            mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sequences], device=device)
            start = len(question.prompt)
            hidden_logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, start - 1 : -1].float()
            chosen = torch.log_softmax(hidden_logits, -1).gather(-1, ids[:, start:, None]).squeeze(-1)
            sums = (chosen * mask[:, start:]).double().sum(1).cpu().numpy()
            by_answer = dict(zip(distinct, sums, strict=True))
            results.append(np.array([by_answer[a] for a in question.answers]))
        return results

    @torch.inference_mode()
    def _packed(self, questions: Sequence[Question]) -> list[np.ndarray]:
        packs = [_Pack(q) for q in questions]
        longest = max(p.length for p in packs)
        device = next(self.model.parameters()).device
        dtype = next(self.model.parameters()).dtype
        ids = np.full((len(packs), longest), self.pad_id, dtype=np.int64)
        positions = np.zeros((len(packs), longest), dtype=np.int64)
        allowed = np.broadcast_to(np.eye(longest, dtype=bool), (len(packs), longest, longest)).copy()  # padding sees itself
        for row, pack in enumerate(packs):
            ids[row, : pack.length] = pack.ids
            positions[row, : pack.length] = pack.positions
            allowed[row, : pack.length, : pack.length] = pack.allowed()
        bias = torch.zeros(allowed.shape, dtype=dtype, device=device)
        bias.masked_fill_(~torch.from_numpy(allowed).to(device), torch.finfo(dtype).min)
        backbone = self.causal_lm.get_decoder()
        hidden = backbone(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=bias[:, None],
            position_ids=torch.from_numpy(positions).to(device),
            use_cache=False,
        ).last_hidden_state  # (B, L, D)
        return self._gather(hidden, packs)

    def _gather(self, hidden: torch.Tensor, packs: "list[_Pack]") -> list[np.ndarray]:
        """Log-probabilities of the answers' tokens, logits only where one is predicted."""
        rows = np.concatenate([np.full(len(p.sources), i) for i, p in enumerate(packs)])
        sources = np.concatenate([p.sources for p in packs])
        targets = np.concatenate([p.targets for p in packs])
        picked = hidden[torch.from_numpy(rows).to(hidden.device), torch.from_numpy(sources).to(hidden.device)]  # (N, D)
        wanted = torch.from_numpy(targets).to(hidden.device)
        head = self.causal_lm.get_output_embeddings()
        cap = getattr(self.causal_lm.config, "final_logit_softcapping", None)
        step = max(1, _LOGIT_BUDGET.get(hidden.device.type, 1 << 26) // int(head.weight.shape[0]))
        parts = []
        for start in range(0, len(picked), step):
            logits = head(picked[start : start + step]).float()
            if cap:
                logits = torch.tanh(logits / cap) * cap
            parts.append(-F.cross_entropy(logits, wanted[start : start + step], reduction="none"))
        values = torch.cat(parts).double().cpu().numpy()
        results, offset = [], 0
        for pack in packs:
            results.append(pack.sums(values[offset : offset + len(pack.sources)]))
            offset += len(pack.sources)
        return results


def _has_window(config: Any) -> bool:
    """Tell whether a layer sees less than the whole text before it."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return any(kind != "full_attention" for kind in kinds)
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


class _Pack:
    """A prompt of P tokens followed by the distinct answers as branches; the last token of a branch is only predicted."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.distinct = list(dict.fromkeys(question.answers))
        prompt = list(question.prompt)
        ids, positions, branch = list(prompt), list(range(len(prompt))), [-1] * len(prompt)
        sources: list[int] = []
        targets: list[int] = []
        owner: list[int] = []
        for number, answer in enumerate(self.distinct):
            begin = len(ids)
            ids += answer[:-1]
            positions += range(len(prompt), len(prompt) + len(answer) - 1)
            branch += [number] * (len(answer) - 1)
            sources += [len(prompt) - 1, *range(begin, begin + len(answer) - 1)]
            targets += answer
            owner += [number] * len(answer)
        self.ids, self.positions = np.array(ids), np.array(positions)
        self.branch, self.owner = np.array(branch), np.array(owner)
        self.sources, self.targets = np.array(sources), np.array(targets)
        self.length = len(ids)

    def allowed(self) -> np.ndarray:
        """Return (L, L): may the row's token see the column's?"""
        earlier = np.tril(np.ones((self.length, self.length), dtype=bool))
        same = self.branch[:, None] == self.branch[None, :]
        in_prompt = (self.branch == -1)[None, :]
        visible: np.ndarray = earlier & (same | in_prompt)
        return visible

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return each answer's score (C,) from its tokens' log-probabilities."""
        totals = np.bincount(self.owner, weights=values, minlength=len(self.distinct))
        by_answer = dict(zip(self.distinct, totals, strict=True))
        return np.array([by_answer[a] for a in self.question.answers])
