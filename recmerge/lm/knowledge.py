"""What a base model knows of a catalogue: how well it predicts titles, and how many it completes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_BATCH = 64


@dataclass(frozen=True)
class Knowledge:
    """Measured on titles, each alone behind the start token.

    Args:
        titles: How many.
        loss: Nats per token, end tokens included.
        completed: Share of titles whose second half (the end token included) is the model's own greedy
            continuation of the first half, token by token; a half is rounded down to whole tokens, one at least.
    """

    titles: int
    loss: float
    completed: float


@torch.inference_mode()
def measure_knowledge(model: Any, titles: Sequence[tuple[int, ...]], start_ids: tuple[int, ...], end_id: int) -> Knowledge:
    """Measure what a model knows of titles.

    Args:
        model: A causal language model with a start token, float32.
        titles: Token ids, without end token.
        start_ids: What a sequence begins with; not empty.
        end_id: The token behind a title.

    Returns:
        The figures. Greedy decoding needs no loop: it gives the true second half exactly where every true token
        is the most likely one after the true ones before it.
    """
    head = model.get_output_embeddings().weight
    total, tokens, completed = 0.0, 0, 0
    ordered = sorted((t for t in titles if t), key=len)
    for begin in range(0, len(ordered), _BATCH):
        batch = ordered[begin : begin + _BATCH]
        rows = [[*start_ids, *t, end_id] for t in batch]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [end_id] * (longest - len(r)) for r in rows])
        logits = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state @ head.T
        losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        right = logits[:, :-1].argmax(-1) == ids[:, 1:]
        for number, title in enumerate(batch):
            first, last = len(start_ids) - 1, len(rows[number]) - 1
            total += float(losses[number, first:last].sum(dtype=torch.float64))
            tokens += last - first
            half = first + max(1, len(title) // 2)
            completed += bool(right[number, half:last].all())
    n = len(ordered)
    return Knowledge(n, total / max(tokens, 1), completed / max(n, 1))
