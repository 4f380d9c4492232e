"""What every merging rule shares: its inputs, its result, and the algebra of low-rank matrices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.tiles import gram

Matrix = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
_ENTRIES = 2**18  # numbers of a dense matrix that are widened to float64 at once


@dataclass(frozen=True)
class LoraFactors:
    """One adapter's share of one module: its task vector is scaling * B @ A.

    An adapter without the module has rank 0: its task vector is zero.

    Args:
        B: (out, R), float64; of a rule with `Method.adds`, float32 where that is exact.
        A: (R, in), likewise.
        scaling: The adapter's own alpha / r, or alpha / sqrt(r).
    """

    B: Floats
    A: Floats
    scaling: float

    @property
    def rank(self) -> int:
        """The number of columns of B and rows of A."""
        return self.B.shape[1]


@dataclass(frozen=True)
class LowRank:
    """A change of one weight, B @ A, with every weight and scaling inside.

    Args:
        B: (out, R), float64.
        A: (R, in), float64, or float32 where that is exact.
    """

    B: Floats
    A: Floats

    @property
    def rank(self) -> int:
        """The number of columns of B and rows of A; the product's rank may be lower."""
        return self.A.shape[0]

    @property
    def height(self) -> int:
        """The rows of B and of the product."""
        return self.B.shape[0]

    def rows(self, start: int, stop: int) -> Floats:
        """Return rows `start` to `stop` - 1 of B, fewer at its end."""
        return self.B[start:stop]


class Stacked(LowRank):
    """The weighted sum of task vectors, sum_i c_i s_i B_i A_i, as stacked factors whose B is formed when it is asked for.

    Args:
        factors: M adapters' factors of one module.
        coefficients: M numbers c_i.
    """

    factors: tuple[LoraFactors, ...]
    coefficients: tuple[float, ...]

    def __init__(self, factors: Sequence[LoraFactors], coefficients: Sequence[float]) -> None:
        self.__dict__.update(factors=tuple(factors), coefficients=tuple(coefficients), A=np.concatenate([f.A for f in factors], axis=0))

    @cached_property
    def B(self) -> Matrix:  # type: ignore[override]  # noqa: N802
        """(out, sum of R), float64; it carries the coefficients and scalings."""
        return self.rows(0, self.height)

    @property
    def height(self) -> int:
        """The rows of B and of the product."""
        return self.factors[0].B.shape[0]

    def rows(self, start: int, stop: int) -> Matrix:
        """Return rows `start` to `stop` - 1 of B, fewer at its end."""
        block = np.empty((min(stop, self.height) - start, self.rank))
        at = 0
        for f, c in zip(self.factors, self.coefficients, strict=True):
            np.multiply(f.B[start:stop], c * f.scaling, out=block[:, at : at + f.rank], dtype=np.float64)
            at += f.rank
        return block


@dataclass(frozen=True)
class Dense:
    """A change of one weight whose rank is full, with every weight and scaling inside.

    Args:
        matrix: (out, in), float32: summed in float64 and rounded once.
        kept: M counts: how many entries of each adapter's task vector went in and are not zero.
    """

    matrix: NDArray[np.float32]
    kept: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """The most that the rank can be: the smaller side."""
        return min(self.matrix.shape)

    def energy(self) -> float:
        """Return the squared Frobenius norm, summed in float64."""
        rows = max(1, _ENTRIES // max(self.matrix.shape[1], 1))
        return math.fsum(float(np.sum(np.square(self.matrix[i : i + rows], dtype=np.float64))) for i in range(0, len(self.matrix), rows))


Delta = LowRank | Dense


@dataclass(frozen=True)
class Method:
    """A merging rule and what it asks of its adapters and its user.

    Args:
        merge: The rule: one module's factors (M of them), M weights and the options in, the merged change out.
        needs: What must be equal over the adapters in every module: "rank", "scaling".
        shared_init: Whether the rule assumes that all A started from the same numbers.
        options: The options that a user may set, with their defaults; see `recmerge.merging.recipe`.
        full_rank: Whether the rule returns `Dense`, so that its result cannot be stacked factors.
        adds: Whether the rule returns `Stacked`, and takes factors in float32 where that is exact.
        unit_weights: Whether the weights are 1.0 by default, as published; else they are equal and sum to one.
        shares: Whether the weights are shares of a mean, so that none may be negative.
    """

    merge: Callable[..., Delta]
    needs: tuple[str, ...] = ()
    shared_init: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    full_rank: bool = False
    adds: bool = False
    unit_weights: bool = False
    shares: bool = False

    def rank_of(self, ranks: Sequence[int], options: Mapping[str, Any]) -> int:
        """Return the rank at most that the factors of a merged module have, from the adapters' ranks there; not of `full_rank`."""
        if "rank" in self.needs:
            return max(ranks)
        return min(sum(ranks), options["clusters"]) if "clusters" in options else sum(ranks)

    def __call__(self, factors: Sequence[LoraFactors], weights: Sequence[float], **arguments: Any) -> Delta:
        """Apply the rule to one module."""
        return self.merge(factors, weights, **arguments)


def equal_weights(n: int) -> list[float]:
    """Return `n` equal weights that sum to one."""
    return [1.0 / n] * n


def module_factors(adapters: Sequence[AdapterFile], module: str, narrow: bool = False) -> list[LoraFactors]:
    """Read one module of every adapter; rank 0 where an adapter does not have it.

    Args:
        adapters: M adapters, at least one of which has the module.
        module: The module's name.
        narrow: In float32 where that is exact.

    Returns:
        M factors with the same out and in.
    """
    out, width = next(a.shape(module) for a in adapters if module in a)
    nothing = LoraFactors(np.zeros((out, 0), np.float32), np.zeros((0, width), np.float32), 1.0)

    def read(adapter: AdapterFile) -> LoraFactors:
        b, rows = adapter.narrow_factors(module) if narrow else adapter.factors(module)
        return LoraFactors(b, rows, adapter.scaling(module))

    return [read(a) if module in a else nothing for a in adapters]


def all_modules(adapters: Sequence[AdapterFile]) -> list[str]:
    """Return the names of the modules that any adapter has, sorted."""
    return sorted({module for adapter in adapters for module in adapter.modules})


def require_equal(factors: Sequence[LoraFactors], needs: Sequence[str], rule: str) -> None:
    """Refuse factors that a rule cannot add entry by entry.

    Args:
        factors: One module's factors.
        needs: "rank", "scaling" or both.
        rule: The rule's name, for the error.

    Raises:
        ArtifactError: They differ.
    """
    for need in needs:
        values = [getattr(f, need) for f in factors]
        if len(set(values)) > 1:
            shown = ", ".join(f"{v:g}" for v in values)
            raise ArtifactError(f"'{rule}' needs equal {need} in all adapters, found {shown}", fix="use --method product")


@dataclass(frozen=True)
class Grams:
    """The inner products of stacked factors' columns of B and rows of A, from which those of their products follow.

    Args:
        left: B' @ B, (R, R).
        right: A @ A', (R, R).
    """

    left: Matrix
    right: Matrix

    def blocks(self, ranks: Sequence[int]) -> Matrix:
        """Return the Frobenius inner products of the parts B_i @ A_i, (M, M): <B1 A1, B2 A2> = sum of (B1' B2) * (A1 A2')."""
        edges = np.cumsum([0, *ranks])
        products, m = self.left * self.right, range(len(ranks))
        return np.array([[products[edges[i] : edges[i + 1], edges[j] : edges[j + 1]].sum() for j in m] for i in m])


def grams(left: Floats, right: Floats) -> Grams:
    """Return the inner products of stacked factors B (out, R) and A (R, in), to about 1e-7 of the norms."""
    return Grams(gram(left, quick=True), gram(right.T, quick=True))


def inner_products(factors: Sequence[LoraFactors]) -> Matrix:
    """Return the Frobenius inner products of the task vectors, (M, M), without forming one, to about 1e-7 of the norms."""
    stacked = grams(np.concatenate([f.B for f in factors], axis=1), np.concatenate([f.A for f in factors], axis=0))
    scalings = np.array([f.scaling for f in factors])
    return stacked.blocks([f.rank for f in factors]) * np.outer(scalings, scalings)


def norm(delta: Delta) -> float:
    """Return the Frobenius norm of a change; that of B @ A without forming it."""
    if isinstance(delta, Dense):
        return math.sqrt(delta.energy())
    return math.sqrt(max(float(np.sum(gram(delta.B) * gram(delta.A.T))), 0.0))


def distance(found: LowRank, meant: LowRank) -> float:
    """Return the Frobenius norm of found - meant, where both have the same rank and nearly the same factors.

    Written as [dB, B] @ [A found; dA], no two large terms cancel, so small differences are seen exactly.
    """
    left = np.concatenate([found.B - meant.B, meant.B], axis=1)
    right = np.concatenate([found.A, found.A - meant.A], axis=0)
    return norm(LowRank(left, right))
