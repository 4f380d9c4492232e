"""The Muon optimiser: momentum whose matrices are made orthogonal before each step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; K. Jordan et al. 2024
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices; embeddings, heads and vectors belong to another optimiser.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    Departure from `torch.optim.Muon`: the orthogonalisation runs in the gradient's own dtype. Torch's runs in
    bfloat16, which CPUs without such units emulate: measured here, its step took half of all training time.

    Args:
        params: Matrices (rows, columns).
        lr: Step size; a step's matrix has singular values near lr * sqrt(max(1, rows / columns)).
        momentum: Nesterov momentum, in [0, 1).
        weight_decay: Share of the weights, times lr, taken away before each step.

    Raises:
        ValueError: A parameter is no matrix.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        odd = [tuple(p.shape) for g in self.param_groups for p in g["params"] if p.ndim != 2]
        if odd:
            raise ValueError(f"Muon steps on matrices, not on a parameter of shape {odd[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step along the orthogonalised momentum."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                velocity = state.setdefault("momentum_buffer", torch.zeros_like(p))
                velocity.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(velocity, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, p.shape[0] / p.shape[1])))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Bring a matrix' singular values near 1 by five Newton-Schulz iterations.

    Args:
        matrix: (rows, columns), any float dtype.

    Returns:
        The same shape and dtype; singular values in about [0.7, 1.2].
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
