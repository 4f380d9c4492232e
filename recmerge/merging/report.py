"""What a merge did to each module, in numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.parts import LoraFactors, LowRank, inner_products, norm

SCHEMA = 1


def module_report(factors: Sequence[LoraFactors], merged: LowRank, energy_lost: float) -> dict[str, Any]:
    """Describe one module.

    Args:
        factors: M adapters' factors.
        merged: The merged change, as it will be stored.
        energy_lost: Share of the squared norm that `svd:R` dropped, in [0, 1].

    Returns:
        The rank, the M norms of the task vectors, their M x M cosines (None where a task vector is zero), the result's norm.
    """
    products = inner_products(factors)
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = products / np.outer(norms, norms)
    shown = [[float(np.clip(c, -1, 1)) if math.isfinite(c) else None for c in row] for row in cosines]
    return {
        "rank": merged.rank,
        "norms": [float(n) for n in norms],
        "cosine": shown,
        "merged_norm": norm(merged),
        "energy_lost": energy_lost,
    }


def describe(adapters: Sequence[AdapterFile], paths: Sequence[str]) -> list[dict[str, Any]]:
    """List the adapters that went in.

    Args:
        adapters: M adapters.
        paths: Where each lies, as the report should say it.

    Returns:
        Per adapter: label, path, the weights' hash, modules, ranks, scalings and parameters.
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
    return {
        "modules": len(rows),
        "task_vector_norms": [float(v) for v in np.sqrt((norms**2).sum(axis=0))],
        "merged_norm": math.sqrt(kept),
        "mean_cosine": float(np.mean(cosines)) if cosines else None,
        "energy_lost": 1 - kept / total if total else 0.0,
        "max_relative_error": max(errors) if errors else None,
    }


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
