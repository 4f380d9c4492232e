"""One module from start to end: the rule, then its rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.dropping import adapter_keys, draw_key
from recmerge.merging.parts import Delta, Dense, LoraFactors, LowRank, all_modules, module_factors
from recmerge.merging.rank_out import FOLD, SVD, parse_rank_out
from recmerge.merging.rank_out.cat import cat
from recmerge.merging.rank_out.svd import svd
from recmerge.merging.recipe import Recipe
from recmerge.merging.trimming import WHOLE, per_tensor, steps, whole_vectors


@dataclass(frozen=True)
class Merged:
    """One merged module.

    Args:
        factors: M adapters' factors, as they went in.
        delta: The merged change: low-rank for an adapter; of either kind for `fold`.
        energy_lost: The share of its squared norm that was dropped, in [0, 1].
        kept: Of a rule that leaves entries out: how many of each adapter went in; else empty.
    """

    factors: list[LoraFactors]
    delta: Delta
    energy_lost: float
    kept: tuple[int, ...] = ()


class Merger:
    """Merges adapters module by module, in any order; holds no tensor between two modules.

    A rule that trims over whole task vectors goes through all modules of all adapters here, before the first is merged.

    Args:
        adapters: M adapters.
        recipe: How, complete.
        advance: Called `warm_up(...)` times on the way.
    """

    def __init__(self, adapters: Sequence[AdapterFile], recipe: Recipe, advance: Callable[[], None] = lambda: None) -> None:
        self.adapters, self.recipe = adapters, recipe
        self.rank_out = parse_rank_out(recipe.rank_out)
        options = recipe.options
        self.thresholds = whole_vectors(adapters, options["density"], advance) if options.get("trim") == WHOLE else None
        self._names = adapter_keys([a.sha256 for a in adapters]) if "seed" in options else []

    def module(self, name: str) -> Merged:
        """Merge one module of every adapter.

        Args:
            name: A module that at least one adapter has.

        Returns:
            The merged change and what went into it.

        Raises:
            ArtifactError: The rule refuses the factors.
        """
        rule = self.recipe.rule
        factors = module_factors(self.adapters, name, narrow=rule.adds)
        try:
            delta = rule(factors, self.recipe.weights, **self._arguments(name, factors))
        except ArtifactError as error:
            raise ArtifactError(f"module {name}: {error.what}", fix=error.fix) from error
        kept = delta.kept if isinstance(delta, Dense) else ()
        if self.rank_out.kind == FOLD:
            return Merged(factors, delta, 0.0, kept)
        return Merged(factors, *self._reduce(delta), kept)

    def _reduce(self, delta: Delta) -> tuple[LowRank, float]:
        if self.rank_out.kind == SVD and self.rank_out.rank:
            return svd(delta, self.rank_out.rank)
        assert isinstance(delta, LowRank)  # `check_options` refuses the others
        return cat(delta)

    def _arguments(self, module: str, factors: Sequence[LoraFactors]) -> dict[str, Any]:
        """Turn the user's options into what the rule takes for one module."""
        options = self.recipe.options
        found: dict[str, Any] = {}
        if "lambda" in options:
            found["lambda_"] = options["lambda"]
        if "clusters" in options:
            found["clusters"] = options["clusters"]
        if "seed" in options:
            found["keys"] = [draw_key(options["seed"], name, module) for name in self._names]
        if "trim" in options:
            found["thresholds"] = per_tensor(factors, options["density"]) if self.thresholds is None else self.thresholds
        elif "density" in options:
            found["density"] = options["density"]
        return found


def largest_rank(adapters: Sequence[AdapterFile], recipe: Recipe) -> int:
    """Return the rank that is enough for every merged module, known from the adapters' headers.

    Args:
        adapters: M adapters.
        recipe: How they are merged into an adapter, complete.

    Returns:
        At least 1.
    """
    limit = parse_rank_out(recipe.rank_out).rank
    found = 1
    for module in all_modules(adapters):
        having = [a for a in adapters if module in a]
        sides = having[0].shape(module)
        rank = min(sides) if recipe.rule.full_rank else recipe.rule.rank_of([a.rank(module) for a in having], recipe.options)
        found = max(found, rank if limit is None else min(rank, limit, *sides))
    return found


def warm_up(adapters: Sequence[AdapterFile], recipe: Recipe) -> int:
    """Return how many modules a `Merger` goes through before the first is merged."""
    return steps(adapters) if recipe.options.get("trim") == WHOLE else 0
