"""What is merged how, with nothing left to default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recmerge.errors import UsageError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging import METHODS
from recmerge.merging.parts import Method
from recmerge.merging.rank_out import CAT, SVD, parse_rank_out


@dataclass(frozen=True)
class Recipe:
    """How something is merged.

    Args:
        method: A name of `METHODS`.
        weights: One per adapter.
        rank_out: "cat", "svd:R" or "fold".
        options: The method's own, by their names: density (the fraction kept, in (0, 1]), lambda, trim ("whole" or
            "per_tensor"), seed, clusters.
        domains: The domains it is for.
    """

    method: str
    weights: Sequence[float]
    rank_out: str
    options: Mapping[str, Any] = field(default_factory=dict)
    domains: Sequence[str] = ()

    @property
    def rule(self) -> Method:
        """The method's rule."""
        return METHODS[self.method]


def check_options(method: str, given: Mapping[str, Any], rank_out: str | None) -> dict[str, Any]:
    """Fill in a method's options, before anything is opened.

    Args:
        method: A name of `METHODS`.
        given: Options by name; None where not given.
        rank_out: As given.

    Returns:
        Every option of the method.

    Raises:
        UsageError: The method does not know an option that is given, or cannot have this rank-out.
    """
    rule = METHODS[method]
    for name, value in given.items():
        if value is not None and name not in rule.options:
            having = ", ".join(m for m in sorted(METHODS) if name in METHODS[m].options)
            known = ", ".join(rule.options) or "none"
            raise UsageError(f"method '{method}' has no option '{name}' (given: {value}), its options: {known}", fix=f"leave it out, or use one of {having}")
    if rule.full_rank and rank_out == CAT:
        raise UsageError(f"rank-out cat cannot hold a result of '{method}', whose rank is full", fix="use --rank-out svd:16 or --rank-out fold")
    return {name: default if given.get(name) is None else given[name] for name, default in rule.options.items()}


def complete(recipe: Recipe, rank_out: str | None, adapters: Sequence[AdapterFile]) -> Recipe:
    """Fill in what hangs on the adapters: the rank-out, and the number of clusters.

    Stacked factors are kept as they are; a change of full rank, and clusters, get the largest rank of the adapters.

    Args:
        recipe: The rest; its own rank-out is not read.
        rank_out: As given, or None.
        adapters: M adapters.

    Returns:
        The whole recipe.
    """
    largest = max(a.rank(m) for a in adapters for m in a.modules)
    chosen = rank_out or (f"{SVD}:{largest}" if recipe.rule.full_rank else CAT)
    parse_rank_out(chosen)
    options = {name: largest if name == "clusters" and value is None else value for name, value in recipe.options.items()}
    return Recipe(recipe.method, recipe.weights, chosen, options, recipe.domains)
