"""The merged adapter, module by module: each is merged, rounded, compared with what was meant and described, then let go."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from recmerge.lm.adapter_file import AdapterFile
from recmerge.lm.adapter_write import AdapterLayout, StoredFactors
from recmerge.merging.combine import Merger, largest_rank
from recmerge.merging.parts import LowRank, all_modules
from recmerge.merging.recipe import Recipe
from recmerge.merging.report import module_report
from recmerge.merging.rounding import round_factors
from recmerge.merging.side_by_side import side_by_side

Rows = MutableMapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Assembled:
    """One module, ready to be written.

    Args:
        module: Its name.
        stored: B and A as the file will hold them.
        row: What the report says of it.
    """

    module: str
    stored: StoredFactors
    row: dict[str, Any]


def layout_of(adapters: Sequence[AdapterFile], recipe: Recipe, dtype: str) -> AdapterLayout:
    """Return what the merged adapter's file will hold, from the adapters' headers.

    Args:
        adapters: M adapters.
        recipe: How they are merged, complete, not into the base.
        dtype: The file's spelling of its dtype.

    Returns:
        Every module of any adapter, and the rank that is enough for each.
    """
    shapes = {m: next(a.shape(m) for a in adapters if m in a) for m in all_modules(adapters)}
    return AdapterLayout(shapes, largest_rank(adapters, recipe), dtype)


def assemble(merger: Merger, layout: AdapterLayout, rows: Rows, advance: Callable[[], None]) -> Iterator[tuple[str, StoredFactors]]:
    """Merge every module, several at a time.

    Args:
        merger: Merges one module.
        layout: What the file holds.
        rows: Gets module -> its report, with `relative_error`: the Frobenius distance of what plain peft adds from what was
            meant, relative to the latter.
        advance: Called after each module.

    Yields:
        Module and factors in the layout's order, as `write_adapter` takes them.
    """
    for done in side_by_side(lambda module: assembled(merger, layout, module), layout.modules):
        rows[done.module] = done.row
        advance()
        yield done.module, done.stored


def assembled(merger: Merger, layout: AdapterLayout, module: str) -> Assembled:
    """Merge, round and describe one module.

    Args:
        merger: Merges it.
        layout: What the file holds.
        module: Its name.

    Returns:
        What is to be written.

    Raises:
        ArtifactError: The rule refuses the factors, or a number does not fit the file's dtype.
    """
    merged = merger.module(module)
    assert isinstance(merged.delta, LowRank)
    rounded = round_factors(layout, module, merged.delta)
    row = module_report(merged, rounded.grams)
    size = row["merged_norm"]
    return Assembled(module, rounded.stored, {**row, "relative_error": rounded.distance / size if size else 0.0})
