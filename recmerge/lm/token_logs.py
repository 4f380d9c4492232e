"""Log-probabilities of chosen tokens, without ever holding all logits."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everybody knows)

from recmerge.lm.scoring_method import text_config

# Logits held at once, (rows, tokens of the vocabulary): on a CPU what a core's cache holds, so that they are not written to memory and read again.
_BLOCK = {"cpu": (128, 4096), "cuda": (4096, 32768)}


def token_logs(model: Any, hidden: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of tokens under a causal language model's output layer.

    Args:
        model: The causal language model.
        hidden: (N, D) last hidden states.
        rows: (E,) which of them predicts.
        targets: (E,) the token predicted.

    Returns:
        (E,) in nats, float64.
    """
    head, cap = model.get_output_embeddings(), getattr(text_config(model), "final_logit_softcapping", None)
    n_rows, n_tokens = _BLOCK.get(hidden.device.type, _BLOCK["cuda"])
    if type(head) is not torch.nn.Linear:  # wrapped or quantized: it gives whole rows only
        return _of_whole_rows(head, cap, hidden, rows, targets, n_rows)
    picked = (hidden[rows].float() * head.weight[targets].float()).sum(1)
    if head.bias is not None:
        picked += head.bias[targets]
    totals = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    for first in range(0, len(head.weight), n_tokens):
        weight, bias = head.weight[first : first + n_tokens], None if head.bias is None else head.bias[first : first + n_tokens]
        for start in range(0, len(hidden), n_rows):
            logits = _capped(F.linear(hidden[start : start + n_rows], weight, bias).float(), cap)
            totals[start : start + n_rows] = torch.logaddexp(totals[start : start + n_rows], torch.logsumexp(logits, 1))
    return (_capped(picked, cap) - totals[rows]).double()


def _of_whole_rows(head: Any, cap: float | None, hidden: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor, n_rows: int) -> torch.Tensor:
    found = torch.empty(len(rows), dtype=torch.float64, device=hidden.device)
    for start in range(0, len(hidden), n_rows):
        logs = torch.log_softmax(_capped(head(hidden[start : start + n_rows]).float(), cap), 1)
        here = ((rows >= start) & (rows < start + n_rows)).nonzero().squeeze(1)
        found[here] = logs[rows[here] - start, targets[here]].double()
    return found


def _capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    return torch.tanh(logits / cap) * cap if cap else logits
