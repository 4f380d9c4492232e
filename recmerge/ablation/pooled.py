"""Rows over several seeds of training: means over seeds and users, with intervals that resample both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recmerge.ablation.graph import Cell, Graph, Outcome
from recmerge.ablation.table import Row, fused_labels, read_metrics
from recmerge.evaluation.significance import bootstrap_seeds, holm, interval, two_sided
from recmerge.names import PER_USER_FILE, USER_ID

_Values = dict[str, npt.NDArray[np.float64]]  # by system: (S, U, M)


def pool_seeds(graph: Graph, outcomes: Mapping[str, Outcome], baseline: str | None) -> list[Row]:
    """Pool the evaluations that differ in the seed of training alone.

    Args:
        graph: The cells.
        outcomes: What became of them.
        baseline: The label of the system the others are compared with.

    Returns:
        One row per target, point and system that is complete under two seeds or more; none where there is one seed.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in graph:
        if cell.kind == "eval" and "seed" in cell.labels and outcomes[cell.key].complete:
            groups.setdefault((cell.labels["target"], cell.labels["group"]), []).append(cell)
    rows: list[Row] = []
    for (target, group), cells in groups.items():
        if len(cells) > 1:
            rows += _rows(target, group, cells, graph, outcomes, baseline)
    return rows


def _rows(target: str, group: str, cells: list[Cell], graph: Graph, outcomes: Mapping[str, Outcome], baseline: str | None) -> list[Row]:
    names, values = _values(cells, graph, outcomes)
    draws = read_metrics(outcomes[cells[0].key])["bootstrap"]
    point = " ".join([*([group] if group else []), f"mean of seeds {', '.join(c.labels['seed'] for c in cells)}"])
    settings = json.loads(cells[0].labels["settings"])
    rows: list[Row] = []
    compared: list[dict[str, dict[str, Any]]] = []
    for label, layers in values.items():
        low, high = interval(bootstrap_seeds(layers, draws["n_samples"], draws["seed"]))
        mean = layers.mean(axis=(0, 1))
        metrics = {n: {"value": float(mean[m]), "ci95": [float(low[m]), float(high[m])]} for m, n in enumerate(names)}
        differences: dict[str, dict[str, Any]] = {}
        if baseline in values and label != baseline:
            apart = layers - values[baseline]  # user by user and seed by seed, before anything is drawn
            resampled = bootstrap_seeds(apart, draws["n_samples"], draws["seed"])
            (low, high), p, delta = interval(resampled), two_sided(resampled), apart.mean(axis=(0, 1))
            differences = {n: {"difference": float(delta[m]), "ci95": [float(low[m]), float(high[m])], "p": float(p[m])} for m, n in enumerate(names)}
            compared.append(differences)
        rows.append(Row(target, point, label, "ok", layers.shape[1], metrics, differences, label == baseline, settings, len(cells)))
    for name in names:
        for found, adjusted in zip(compared, holm([found[name]["p"] for found in compared]), strict=True):
            found[name]["p_holm"] = adjusted
    return rows


def _values(cells: list[Cell], graph: Graph, outcomes: Mapping[str, Outcome]) -> tuple[list[str], _Values]:
    """Return the metrics' names, and the per-user values of every system that all evaluations hold."""
    layers: dict[str, list[npt.NDArray[np.float64]]] = {}
    names: list[str] = []
    for cell in cells:
        frame = pl.read_parquet(Path(outcomes[cell.key].result["run_dir"]) / PER_USER_FILE)
        names = list(read_metrics(outcomes[cell.key])["metrics"])
        systems = {outcomes[key].result["name"]: graph.cells[key].labels["system"] for key in cell.wants if outcomes[key].complete}
        for run, label in (systems | fused_labels(cell, graph, outcomes, frame["run"].unique().sort())).items():
            part = frame.filter(pl.col("run") == run).sort(USER_ID)
            if len(part):
                layers.setdefault(label, []).append(part.select(names).to_numpy())
    return names, {label: np.stack(found) for label, found in layers.items() if len(found) == len(cells)}
