"""Output layer and cross-entropy in one, a few rows at a time, so that the logits never leave the cache."""

from typing import Any

import torch

_CHUNK_ELEMENTS = 1 << 20  # logits held at once,
_LEAST_ROWS = 128  # but of so many rows at least: with a large vocabulary its weights would else be read for a few rows each time


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        n, step = hidden.shape[0], max(_LEAST_ROWS, _CHUNK_ELEMENTS // weight.shape[0])
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for start in range(0, n, step):
            part, wanted = hidden[start : start + step], targets[start : start + step, None]
            logits = part @ weight.T
            logits -= logits.amax(1, keepdim=True)
            picked = logits.gather(1, wanted)
            sums = logits.exp_().sum(1, keepdim=True)
            total += (sums.log() - picked).sum(dtype=torch.float64)
            gradient = logits.div_(sums).scatter_add_(1, wanted, torch.full_like(picked, -1.0)).div_(n)
            if to_hidden is not None:
                torch.mm(gradient, weight, out=to_hidden[start : start + step])
            if to_weight is not None:
                to_weight.addmm_(gradient.T, part)
        ctx.save_for_backward(to_hidden, to_weight)
        return (total / max(n, 1)).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads = [g * upstream[0] if g is not None else None for g in ctx.saved_tensors]
        return (*grads, None)


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of `hidden @ weight.T`, its gradients found in the same pass.

    Args:
        hidden: (N, D) float32.
        weight: (V, D) of the output layer, float32.
        targets: (N,) ids.

    Returns:
        Scalar, nats per row; equals `F.cross_entropy(hidden @ weight.T, targets)` to rounding.
    """
    loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)
    return loss
