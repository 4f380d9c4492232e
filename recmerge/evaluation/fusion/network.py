"""The same choice model with a small network beside the weighted sum, for what the rankers say together."""

from dataclasses import dataclass

import numpy as np

from recmerge.evaluation.fusion.features import Array

_WIDTH = 64
_BATCH = 256
_EPOCHS = 60
_PATIENCE = 6
_RATE = 2e-3
_DECAY = 1e-2


@dataclass(frozen=True)
class Network:
    """A fitted network: the weighted sum plus a perceptron of one hidden layer of W = 64.

    Args:
        skip: (F,) weights of the sum.
        into: (F, W) and `bias` (W,): the hidden layer.
        bias: See `into`.
        out: (W,) of the hidden layer.
    """

    skip: Array
    into: Array
    bias: Array
    out: Array

    def __call__(self, features: Array) -> Array:
        """Score (B, C) candidates by features (B, C, F)."""
        hidden = np.maximum(features @ self.into + self.bias, 0.0)
        result: Array = features @ self.skip + hidden @ self.out
        return result


def fit_network(features: Array, target: np.ndarray, held: np.ndarray, start: Array, seed: int) -> Network:
    """Fit by AdamW on the users' log-likelihood, until that of held-out users stops rising.

    Args:
        features: (B, C, F).
        target: (B,) place of what was bought.
        held: (B,) bool, users that only tell when to stop.
        start: (F,) weights of the sum to start from, those of the logit; the network starts at nothing beside them.
        seed: Of the hidden layer and the order of the users.

    Returns:
        The network of the lowest held-out loss.
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)
    x, y, mine = torch.from_numpy(features).float(), torch.from_numpy(target).long(), torch.from_numpy(~held)
    train, rest = mine.nonzero().squeeze(1), (~mine).nonzero().squeeze(1)
    n = x.shape[-1]
    skip = torch.from_numpy(start).float().clone().requires_grad_()
    into = (torch.randn(n, _WIDTH, generator=generator) / n**0.5).requires_grad_()
    bias = torch.zeros(_WIDTH, requires_grad=True)
    out = torch.zeros(_WIDTH, requires_grad=True)
    parameters = [skip, into, bias, out]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)

    def loss(users: "torch.Tensor") -> "torch.Tensor":
        chosen = x[users]
        return functional.cross_entropy(chosen @ skip + torch.relu(chosen @ into + bias) @ out, y[users])

    def measured() -> float:
        with torch.no_grad():
            return float(loss(rest))

    best, kept, waited = measured(), [p.detach().clone() for p in parameters], 0
    for _ in range(_EPOCHS):
        order = train[torch.randperm(len(train), generator=generator)]
        for begin in range(0, len(order), _BATCH):
            optimiser.zero_grad()
            loss(order[begin : begin + _BATCH]).backward()
            optimiser.step()
        now = measured()
        best, kept, waited = (now, [p.detach().clone() for p in parameters], 0) if now < best else (best, kept, waited + 1)
        if waited == _PATIENCE:
            break
    return Network(*(p.double().numpy() for p in kept))
