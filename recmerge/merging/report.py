"""What a merge did to each module, in numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.combine import Merged
from recmerge.merging.parts import inner_products, norm
from recmerge.merging.rank_out import FOLD, parse_rank_out
from recmerge.merging.recipe import Recipe

SCHEMA = 1


def module_report(merged: Merged) -> dict[str, Any]:
    """Describe one module.

    Args:
        merged: The merged module; its change as it will be stored.

    Returns:
        The rank, the M norms of the task vectors, their M x M cosines (None where a task vector is zero), the result's norm,
        the share of its energy that `svd:R` dropped, in [0, 1], and of a rule that leaves entries out how many of each
        adapter went in.
    """
    products = inner_products(merged.factors)
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = products / np.outer(norms, norms)
    shown = [[float(np.clip(c, -1, 1)) if math.isfinite(c) else None for c in row] for row in cosines]
    return {
        "rank": merged.delta.rank,
        "norms": [float(n) for n in norms],
        "cosine": shown,
        "merged_norm": norm(merged.delta),
        "energy_lost": merged.energy_lost,
    } | ({"kept": list(merged.kept)} if merged.kept else {})


def describe(adapters: Sequence[AdapterFile], paths: Sequence[str]) -> list[dict[str, Any]]:
    """List the adapters that went in.

    Args:
        adapters: M adapters.
        paths: Where each lies, as the report should say it.

    Returns:
        Per adapter: label, path, the weights' hash, modules, ranks, scalings, parameters, and the entries of its task vector.
    """
    return [
        {
            "label": a.label,
            "path": path,
            "sha256": a.sha256,
            "modules": len(a.modules),
            "ranks": sorted({a.rank(m) for m in a.modules}),
            "scalings": sorted({a.scaling(m) for m in a.modules}),
            "parameters": a.n_parameters(),
            "entries": sum(math.prod(a.shape(m)) for m in a.modules),
        }
        for a, path in zip(adapters, paths, strict=True)
    ]


def summarise(modules: Mapping[str, Mapping[str, Any]], n_adapters: int) -> dict[str, Any]:
    """Sum modules up: norms of whole task vectors, their mean cosine, energy lost, largest errors.

    Args:
        modules: module -> its report.
        n_adapters: M.

    Returns:
        A JSON-like dict.
    """
    rows = list(modules.values())
    norms = np.array([r["norms"] for r in rows])
    pairs = [(i, j) for i in range(n_adapters) for j in range(i)]
    cosines = [r["cosine"][i][j] for r in rows for i, j in pairs if r["cosine"][i][j] is not None]
    total = sum(r["merged_norm"] ** 2 / max(1 - r["energy_lost"], 1e-300) for r in rows)
    kept = sum(r["merged_norm"] ** 2 for r in rows)
    errors = [r["relative_error"] for r in rows if r.get("relative_error") is not None]
    counted = [r["kept"] for r in rows if "kept" in r]
    return {
        "modules": len(rows),
        "task_vector_norms": [float(v) for v in np.sqrt((norms**2).sum(axis=0))],
        "merged_norm": math.sqrt(kept),
        "mean_cosine": float(np.mean(cosines)) if cosines else None,
        "energy_lost": 1 - kept / total if total else 0.0,
        "max_relative_error": max(errors) if errors else None,
    } | ({"kept": [sum(column) for column in zip(*counted, strict=True)]} if counted else {})


def merge_report(recipe: Recipe, adapters: Sequence[AdapterFile], paths: Sequence[str], modules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `merge_report.json` holds.

    Args:
        recipe: How the adapters were merged.
        adapters: M adapters.
        paths: Where each lies, as the report should say it.
        modules: module -> its report.

    Returns:
        A JSON-like dict.
    """
    return {
        "schema": SCHEMA,
        "method": recipe.method,
        "weights": list(recipe.weights),
        "options": dict(recipe.options),
        "rank_out": recipe.rank_out,
        "adapters": describe(adapters, paths),
        "summary": summarise(modules, len(adapters)),
        "inference": inference_cost(adapters, modules, parse_rank_out(recipe.rank_out).kind == FOLD),
        "modules": modules,
    }


def summary_line(report: Mapping[str, Any]) -> str:
    """Return a merge in one line, from its report."""
    s = report["summary"]
    added = report["inference"]["added_parameters"]
    text = f"merged {len(report['adapters'])} adapters by '{report['method']}': {s['modules']} modules, {added:,} added parameters"
    if "kept" in s:
        entries = sum(a["entries"] for a in report["adapters"])
        text += f", {sum(s['kept']) / entries:.1%} of the entries kept"
    if s["energy_lost"]:
        text += f", {s['energy_lost']:.2%} of the energy lost"
    return text + f", largest relative error {s['max_relative_error']:.1e}"


def inference_cost(adapters: Sequence[AdapterFile], modules: Mapping[str, Mapping[str, Any]], folded: bool) -> dict[str, Any]:
    """Count what inference has to carry besides the base.

    Args:
        adapters: The adapters that went in.
        modules: module -> its report.
        folded: Whether the changes went into the base's own weights.

    Returns:
        The parameters added by the result and by the largest adapter that went in.
    """
    added = 0
    if not folded:
        rank = max((r["rank"] for r in modules.values()), default=0)  # all modules are padded to one rank
        shapes = {m: next(a.shape(m) for a in adapters if m in a) for m in modules}
        added = sum(rank * (out + width) for out, width in shapes.values())
    return {"added_parameters": added, "largest_input_parameters": max(a.n_parameters() for a in adapters)}
