"""One row per target, point and system, with the value of a random order beside them."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recmerge.ablation.graph import FUSE_FLAG, FUSED_LABEL, Cell, Graph, Outcome, Use
from recmerge.names import METRICS_FILE
from recmerge.stages.fuse import FUSED

CHANCE = "chance (random order)"
METRICS = ("ndcg@1",)  # of a table in which nothing was evaluated


@dataclass(frozen=True)
class Row:
    """One system on one target at one point of the grid.

    Args:
        target: The target domain.
        point: The varied settings; empty for a grid of one point.
        system: The system's label.
        state: ok, or what became of the cell that it lacks.
        n_users: How many users were ranked for.
        metrics: value and ci95 by metric; a value alone for chance.
        differences: difference, ci95, p and p_holm (adjusted for the number of systems compared) by metric, to the baseline.
        is_baseline: Whether the others are compared with it.
        settings: What varies in the grid apart from the seed, by dotted key.
        seeds: How many seeds of training the figures are a mean of.
    """

    target: str
    point: str
    system: str
    state: str = "ok"
    n_users: int | None = None
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_baseline: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1


def build_rows(graph: Graph, outcomes: Mapping[str, Outcome], baseline: str | None) -> list[Row]:
    """Collect the rows from the evaluations' `metrics.json`.

    Args:
        graph: The cells.
        outcomes: What became of them.
        baseline: The label of the system the others are compared with.

    Returns:
        The rows, by target and point as planned; behind each group the value of a random order. A system whose
        cells failed has a row without figures.
    """
    rows: list[Row] = []
    for cell in graph:
        if cell.kind == "eval":
            rows += _rows_of(cell, graph, outcomes, baseline)
    return rows


def _rows_of(cell: Cell, graph: Graph, outcomes: Mapping[str, Outcome], baseline: str | None) -> list[Row]:
    target, point = cell.labels["target"], cell.labels["point"]
    settings = json.loads(cell.labels.get("settings", "{}"))
    outcome = outcomes[cell.key]
    metrics = read_metrics(outcome) if outcome.complete else {"runs": {}, "comparisons": []}
    rows = []
    for key in cell.wants:
        label = graph.cells[key].labels["system"]
        block = metrics["runs"].get(outcomes[key].result.get("name"))
        if block is None or not outcomes[key].complete:
            state = f"{outcome.state}: {cell.key}" if outcomes[key].complete else _cause(key, graph, outcomes)
            rows.append(Row(target, point, label, state, is_baseline=label == baseline, settings=settings))
            continue
        compared = _compared(metrics, outcomes[key].result["name"])
        rows.append(Row(target, point, label, "ok", block["n_users"], block["metrics"], compared, label == baseline, settings))
    rows += _fused_rows(cell, graph, outcomes, metrics, settings)
    chance = metrics.get("chance")
    if chance:
        rows.append(Row(target, point, CHANCE, n_users=metrics["n_users"], metrics={k: {"value": v} for k, v in chance.items()}, settings=settings))
    return rows


def _fused_rows(cell: Cell, graph: Graph, outcomes: Mapping[str, Outcome], metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Row]:
    """Return a row of the fused system, and one of the fusion without each language model; of an incomplete one a row that says what it lacks."""
    if FUSED_LABEL not in cell.labels:
        return []
    target, point, outcome = cell.labels["target"], cell.labels["point"], outcomes[cell.key]
    if FUSED not in metrics["runs"]:
        inputs = next(use.only_with for use in cell.command if isinstance(use, Use) and use.flag == FUSE_FLAG)
        lacking = next((key for key in inputs if not outcomes[key].complete), None)
        state = _cause(lacking, graph, outcomes) if lacking else f"{outcome.state}: {cell.key}"
        return [Row(target, point, cell.labels[FUSED_LABEL], state, settings=settings)]
    labels = fused_labels(cell, graph, outcomes, metrics["runs"])
    blocks = {run: metrics["runs"][run] for run in labels}
    return [Row(target, point, labels[run], "ok", b["n_users"], b["metrics"], _compared(metrics, run), settings=settings) for run, b in blocks.items()]


def fused_labels(cell: Cell, graph: Graph, outcomes: Mapping[str, Outcome], runs: Iterable[str]) -> dict[str, str]:
    """Name the fused rankings of an evaluation.

    Args:
        cell: The evaluation.
        graph: The cells.
        outcomes: What became of them.
        runs: Every ranking that it holds, by eval's names: "fused" and "fused without RUN" are those meant.

    Returns:
        Labels by those names: the fused system's, and that with "without SYSTEM" behind it.
    """
    label = cell.labels.get(FUSED_LABEL)
    if label is None:
        return {}
    systems = {outcomes[key].result.get("name"): graph.cells[key].labels["system"] for key in cell.wants}
    without = f"{FUSED} without "
    left_out = {run: run.removeprefix(without) for run in runs if run.startswith(without)}
    return {FUSED: label} | {run: f"{label} without {systems.get(part, part)}" for run, part in left_out.items()}


def _compared(metrics: Mapping[str, Any], run: str) -> dict[str, Any]:
    return {c["metric"]: c for c in metrics["comparisons"] if c["run"] == run}


def _cause(key: str, graph: Graph, outcomes: Mapping[str, Outcome]) -> str:
    """Name the first cell behind a skipped one that failed."""
    if outcomes[key].state != "skipped":
        return f"{outcomes[key].state}: {key}"
    return next((_cause(need, graph, outcomes) for need in graph.cells[key].needs if not outcomes[need].complete), f"skipped: {key}")


def read_metrics(outcome: Outcome) -> dict[str, Any]:
    """Return the `metrics.json` of a complete evaluation."""
    document: dict[str, Any] = json.loads((Path(outcome.result["run_dir"]) / METRICS_FILE).read_text(encoding="utf-8"))
    return document


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the metrics that the rows hold, in the tables' order."""
    return list(dict.fromkeys(name for row in rows for name in row.metrics)) or list(METRICS)


def as_csv(rows: Sequence[Row]) -> str:
    """Write every figure in full: value, interval, difference to the baseline and its p, per metric."""
    names = metric_names(rows)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = [f"{name}{part}" for name in names for part in ("", "_low", "_high", "_difference", "_difference_low", "_difference_high", "_p", "_p_holm")]
    out.writerow(["target", "settings", "system", "state", "is_baseline", "users", *columns])
    for row in rows:
        figures: list[Any] = []
        for name in names:
            figure, compared = row.metrics.get(name, {}), row.differences.get(name, {})
            figures += [figure.get("value"), *figure.get("ci95", (None, None))]
            figures += [compared.get("difference"), *compared.get("ci95", (None, None)), compared.get("p"), compared.get("p_holm")]
        out.writerow([row.target, row.point, row.system, row.state, row.is_baseline, row.n_users, *figures])
    return text.getvalue()


def shown_cells(rows: Sequence[Row], names: Sequence[str], *, compare: bool = True) -> tuple[list[str], list[list[str]]]:
    """Return rounded cells for a reader.

    Args:
        rows: The rows.
        names: Metrics to show; the first with its interval.
        compare: Add the first metric's difference to the baseline, where there is one.

    Returns:
        Column names, and the cells of each row.
    """
    head = names[0]
    compare = compare and any(row.differences for row in rows)
    heads, firsts = _row_names(rows)
    columns = [*heads, "users", f"{head} [95 %]", *names[1:], *([f"{head} - baseline [95 %], p (Holm)"] if compare else [])]
    cells = []
    for row, first in zip(rows, firsts, strict=True):
        line = [*first, "" if row.n_users is None else f"{row.n_users:,}"]
        if row.state != "ok":
            line.append(row.state)
        else:
            line += [_with_interval(row.metrics[head]), *(f"{row.metrics[n]['value']:.4f}" for n in names[1:])]
            line += [_difference(row, head)] if compare else []
        cells.append(line + [""] * (len(columns) - len(line)))
    return columns, cells


def difference_cells(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the differences to the baseline, one column per metric; no cells where nothing was compared."""
    heads, firsts = _row_names(rows)
    cells = [[*first, *(_difference(row, name) for name in names)] for row, first in zip(rows, firsts, strict=True) if row.differences]
    return [*heads, *(f"{name} [95 %], p (Holm)" for name in names)], cells


def _row_names(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the leading columns: target and settings only where they vary."""
    many_targets, many_points = len({r.target for r in rows}) > 1, any(r.point for r in rows)
    heads = ["system", *(["target"] if many_targets else []), *(["settings"] if many_points else [])]
    return heads, [[r.system, *([r.target] if many_targets else []), *([r.point] if many_points else [])] for r in rows]


def _with_interval(figure: Mapping[str, Any]) -> str:
    interval = figure.get("ci95")
    return f"{figure['value']:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _difference(row: Row, name: str) -> str:
    if row.is_baseline:
        return "baseline"
    compared = row.differences.get(name)
    if compared is None:
        return ""
    return f"{compared['difference']:+.4f} [{compared['ci95'][0]:+.4f}, {compared['ci95'][1]:+.4f}], {compared['p_holm']:.4f}"


def as_markdown(title: str, rows: Sequence[Row], note: str) -> str:
    """Write the rounded table as Markdown, with a note below it."""
    columns, cells = shown_cells(rows, metric_names(rows))
    lines = [f"# {title}", "", _markdown_row(columns), _markdown_row(["---", *["---:"] * (len(columns) - 1)])]
    lines += [_markdown_row(row) for row in cells]
    return "\n".join([*lines, "", note, ""])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
