"""What a merge did to each module, in numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.combine import Merged, largest_rank
from recmerge.merging.conflict import sign_conflict
from recmerge.merging.latency import linear_latency
from recmerge.merging.parts import Grams, Matrix, Stacked, all_modules, inner_products, norm
from recmerge.merging.rank_out import FOLD, parse_rank_out
from recmerge.merging.recipe import Recipe

SCHEMA = 2  # 2: sign conflicts, cosines of whole task vectors, floating-point operations, latency
SIGNS = ("sign_conflict", "weighted_sign_conflict")
LATENCY = "latency"  # of `inference`: the one entry that differs between two merges of the same adapters
_CANCELLED = 1e-3  # of the parts' energy: a sum that keeps less is measured again in float64


def module_report(merged: Merged, known: Grams | None = None) -> dict[str, Any]:
    """Describe one module.

    Args:
        merged: The merged module; its change as it will be stored.
        known: The inner products of the factors of a low-rank change, where they are known.

    Returns:
        The rank, the M norms of the task vectors, their M x M cosines and sign conflicts (None where a task vector is zero;
        `sign_entries` says of how many entries), the result's norm, the share of its energy that `svd:R` dropped, in [0, 1],
        and of a rule that leaves entries out how many of each adapter went in.
    """
    products, merged_norm = _measure(merged, known)
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = products / np.outer(norms, norms)
    signs = sign_conflict(merged.factors)
    return {
        "rank": merged.delta.rank,
        "norms": [float(n) for n in norms],
        "cosine": _shown(np.clip(cosines, -1, 1)),
        "sign_conflict": _shown(signs.plain),
        "weighted_sign_conflict": _shown(signs.weighted),
        "sign_entries": signs.n_entries,
        "merged_norm": merged_norm,
        "energy_lost": merged.energy_lost,
    } | ({"kept": list(merged.kept)} if merged.kept else {})


def _measure(merged: Merged, known: Grams | None) -> tuple[Matrix, float]:
    """Return the inner products of the task vectors and the norm of the merged change."""
    delta = merged.delta
    if not isinstance(delta, Stacked):
        return inner_products(merged.factors), norm(delta)
    coefficients = np.array(delta.coefficients)
    if known is None or not coefficients.all():
        products = inner_products(merged.factors)
    else:
        products = known.blocks([f.rank for f in merged.factors]) / np.outer(coefficients, coefficients)
    energy = float(coefficients @ products @ coefficients)
    kept = energy > _CANCELLED * float(coefficients**2 @ np.diag(products))
    return products, math.sqrt(energy) if kept else norm(delta)


def _shown(matrix: Matrix) -> list[list[float | None]]:
    return [[float(v) if math.isfinite(v) else None for v in row] for row in matrix]


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
    """Sum modules up: whole task vectors, energy lost, largest error.

    Args:
        modules: module -> its report.
        n_adapters: M.

    Returns:
        A JSON-like dict. `cosine` is that of whole task vectors, M x M; the sign conflicts are means over modules in which both
        adapters changed something; `mean_cosine` is the mean over all modules and pairs.
    """
    rows = list(modules.values())
    norms = np.array([r["norms"] for r in rows])
    lower = np.tril_indices(n_adapters, -1)
    cosines = np.array([r["cosine"] for r in rows], dtype=np.float64)
    products = np.nansum(cosines * norms[:, :, None] * norms[:, None, :], axis=0)
    whole = np.sqrt((norms**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        angles = products / np.outer(whole, whole)
    pairs = cosines[:, *lower]
    total = sum(r["merged_norm"] ** 2 / max(1 - r["energy_lost"], 1e-300) for r in rows)
    kept = sum(r["merged_norm"] ** 2 for r in rows)
    errors = [r["relative_error"] for r in rows if r.get("relative_error") is not None]
    counted = [r["kept"] for r in rows if "kept" in r]
    return {
        "modules": len(rows),
        "task_vector_norms": [float(v) for v in whole],
        "merged_norm": math.sqrt(kept),
        "cosine": _shown(np.clip(angles, -1, 1)),
        "mean_cosine": float(np.nanmean(pairs)) if np.isfinite(pairs).any() else None,
        **{key: _shown(_mean_over_modules(rows, key)) for key in SIGNS},
        "energy_lost": 1 - kept / total if total else 0.0,
        "max_relative_error": max(errors) if errors else None,
    } | ({"kept": [sum(column) for column in zip(*counted, strict=True)]} if counted else {})


def _mean_over_modules(rows: Sequence[Mapping[str, Any]], key: str) -> Matrix:
    values = np.array([r[key] for r in rows], dtype=np.float64)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))


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
    rank = 0 if parse_rank_out(recipe.rank_out).kind == FOLD else largest_rank(adapters, recipe)
    return {
        "schema": SCHEMA,
        "method": recipe.method,
        "weights": list(recipe.weights),
        "options": dict(recipe.options),
        "rank_out": recipe.rank_out,
        "adapters": describe(adapters, paths),
        "summary": summarise(modules, len(adapters)),
        "inference": inference_cost(adapters, rank),
        "modules": modules,
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Return a report as the text of `merge_report.json`, one line per module."""
    head = json.dumps({**report, "modules": {}}, indent=2, ensure_ascii=False, allow_nan=False)
    rows = [f"    {json.dumps(m, ensure_ascii=False)}: {json.dumps(row, ensure_ascii=False, allow_nan=False)}" for m, row in report["modules"].items()]
    return head.replace('"modules": {}', '"modules": {\n' + ",\n".join(rows) + "\n  }") + "\n"


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


def inference_cost(adapters: Sequence[AdapterFile], rank: int) -> dict[str, Any]:
    """Say what inference has to carry besides the base.

    Args:
        adapters: The adapters that went in.
        rank: Of every merged module; 0 where the changes went into the base's own weights.

    Returns:
        The parameters added by the result and by the largest adapter that went in; the floating-point operations for one token,
        of the adapted layers as they are and those that the result adds; and the time of one layer, see `linear_latency`.
    """
    shapes = {m: next(a.shape(m) for a in adapters if m in a) for m in all_modules(adapters)}
    added = rank * sum(out + width for out, width in shapes.values())
    return {
        "rank": rank,
        "added_parameters": added,
        "largest_input_parameters": max(a.n_parameters() for a in adapters),
        "base_flops_per_token": 2 * sum(out * width for out, width in shapes.values()),
        "added_flops_per_token": 2 * added,
        LATENCY: linear_latency(list(shapes.values()), rank),
    }
